// What is shown at a score, at a moment; keys and pointers.
const HIT_IOU = 0.5;
// Browsers keep a player's time in whole microseconds.
const CLOCK_SLACK = 1e-4;
const MOST_LISTED = 250;
const FEW_AT_FIRST = 30;
const MANY_AT_FIRST = 120;
const topScore = data.predictions.reduce((top, row) =>
  Math.max(top, row[3]), 1e-9);
const predictions = data.predictions.map(([start, end, label, score, picture],
  index) => ({id: `p${index}`, start, end, label, score, picture,
    strength: Math.max(score, 0) / topScore}));
const actions = (data.truth ?? []).map(([start, end, label, picture],
  index) => ({id: `t${index}`, start, end, label, picture, isAction: true}));
const itemOf = new Map([...predictions, ...actions].map((item) =>
  [item.id, item]));
const rowOf = new Map([...$("body").children].map((row) =>
  [row.dataset.id, row]));
const slider = $("score");
let shown = [];
let active = new Set();
let loops = false;

function isShown(item) {
  const least = data.thresholds && $("trusted").checked
    ? data.thresholds[item.label] : Number(slider.value);
  return item.score >= least;
}

// Best score first, each finds the action it overlaps most, as in mAP.
function matchActions() {
  const free = new Set(actions);
  for (const item of predictions) item.hit = undefined;
  for (const item of [...shown].sort((a, b) => b.score - a.score)) {
    let best = null;
    let most = HIT_IOU;
    for (const action of free) {
      if (action.label !== item.label) continue;
      const shared = Math.min(item.end, action.end) -
        Math.max(item.start, action.start);
      const iou = shared / (item.end - item.start + action.end -
        action.start - shared);
      if (iou >= most) [best, most] = [action, iou];
    }
    item.hit = best !== null;
    free.delete(best);
  }
  for (const action of actions) action.missed = free.has(action);
}

function refresh() {
  shown = predictions.filter(isShown);
  if (data.truth) {
    matchActions();
    const hits = shown.filter((item) => item.hit).length;
    $("verdict").hidden = false;
    $("verdict").textContent = `${hits} of ${actions.length} actions found,` +
      ` ${shown.length - hits} false (tIoU ${HIT_IOU})`;
  }
  $("shown").textContent = shown.length === predictions.length
    ? `${shown.length}` : `${shown.length} of ${predictions.length}`;
  $("score-value").textContent = Number(slider.value).toFixed(
    topScore < 0.1 ? 4 : 2);
  $("slider").classList.toggle("off", $("trusted").checked);
  timeline.draw(shown, actions);
  drawList();
  const visible = new Set(shown);
  for (const item of predictions) {
    const row = rowOf.get(item.id);
    row.hidden = !visible.has(item);
    row.classList.toggle("false", item.hit === false);
  }
  active = new Set();
  showTime();
}

function drawList() {
  const list = $("list");
  const lines = shown.slice(0, MOST_LISTED).map((item) => {
    const line = make("li", hueOf(item.label));
    const button = make("button", "entry");
    button.type = "button";
    button.dataset.id = item.id;
    button.setAttribute("aria-label", describe(item));
    if (item.picture >= 0) {
      const picture = make("img");
      picture.src = data.pictures[item.picture];
      picture.alt = "";
      button.append(picture);
    } else {
      button.append(make("span", "blank"));
    }
    const text = make("span", "what");
    text.append(make("b", "", data.labels[item.label]), make("span", "when",
      `${clockText(item.start)} – ${clockText(item.end)}`));
    const meter = make("span", "meter");
    const bar = make("i");
    bar.style.width = `${100 * item.strength}%`;
    meter.append(bar);
    text.append(meter);
    const mark = item.hit === undefined ? "" : item.hit ? "✓" : "✗";
    button.append(text, make("span", "score", scoreText(item.score)),
      make("span", item.hit ? "mark right" : "mark", mark));
    line.append(button);
    return line;
  });
  if (!lines.length) {
    lines.push(make("li", "empty", predictions.length
      ? "No detection reaches the score: move the slider to see weaker ones."
      : "Nothing was found."));
  }
  if (shown.length > MOST_LISTED) {
    lines.push(make("li", "empty", `${shown.length - MOST_LISTED} more: ` +
      "raise the score, or look at the table."));
  }
  list.replaceChildren(...lines);
}

function showTime() {
  const time = player.time;
  if (loops && timeline.chosen && player.playing &&
      time >= timeline.chosen.end) {
    player.seek(timeline.chosen.start);
    return;
  }
  $("clock").textContent = clockText(time);
  timeline.showTime();
  const now = new Set([...shown, ...actions].filter((item) =>
    item.start <= time + CLOCK_SLACK && time < item.end));
  if (now.size !== active.size || [...now].some((one) => !active.has(one))) {
    active = now;
    showActive();
  }
  if (!player.works) showStill(time);
}

function showActive() {
  for (const element of document.querySelectorAll(".playing")) {
    element.classList.remove("playing");
  }
  const chips = [...active].sort((a, b) => Boolean(b.isAction) -
    Boolean(a.isAction) || b.score - a.score).slice(0, 8).map((item) => {
    const chip = make("li", `chip ${hueOf(item.label)}` +
      (item.isAction ? " action" : ""));
    chip.append(make("b", "", data.labels[item.label]), make("span", "",
      item.isAction ? "annotated" : scoreText(item.score)));
    return chip;
  });
  $("now").replaceChildren(...chips);
  for (const item of active) {
    timeline.elements.get(item.id)?.classList.add("playing");
    rowOf.get(item.id)?.classList.add("playing");
  }
  for (const entry of $("list").querySelectorAll(".entry")) {
    if (active.has(itemOf.get(entry.dataset.id))) {
      entry.classList.add("playing");
    }
  }
  const first = $("list").querySelector(".playing");
  if (first && !$("list").matches(":hover, :focus-within")) {
    const list = $("list");
    const top = first.offsetTop - list.offsetTop;
    if (top < list.scrollTop ||
        top + first.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = top - list.clientHeight / 3;
    }
  }
}

// Where the video cannot play: the picture of the segment of this moment.
function showStill(time) {
  const near = [...predictions, ...actions].filter((item) =>
    item.picture >= 0 && item.start <= time + CLOCK_SLACK &&
    time <= item.end)
    .sort((a, b) => Math.abs(a.start + a.end - 2 * time) -
      Math.abs(b.start + b.end - 2 * time))[0];
  $("still").hidden = !near;
  if (near) $("still").src = data.pictures[near.picture];
}

function say(text) {
  $("said").textContent = text;
}

function go(item) {
  timeline.choose(item);
  player.seek(item.start);
  timeline.reveal(item.start);
  say(describe(item));
}

function step(direction) {
  const time = player.time;
  const sorted = [...(shown.length ? shown : actions)].sort((a, b) =>
    a.start - b.start);
  const next = direction > 0
    ? sorted.find((item) => item.start > time + 0.01)
    : sorted.findLast((item) => item.start < time - 0.01);
  if (next) go(next);
}

function setScore(value) {
  slider.value = value;
  $("trusted").checked = false;
  refresh();
}

// --- Pointers ---------------------------------------------------------------

document.addEventListener("click", (event) => {
  const holder = event.target.closest("[data-id]");
  if (holder && event.target.closest("button")) {
    go(itemOf.get(holder.dataset.id));
  }
});

function scrub(element, secondsAt) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest(".segment")) return;
    element.setPointerCapture(event.pointerId);
    player.seek(secondsAt(event));
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) {
      player.seek(secondsAt(event));
    }
  });
}

const secondsIn = (event) => {
  const box = $("ruler").getBoundingClientRect();
  return (event.clientX - box.left) / box.width * data.duration;
};
scrub($("ruler"), secondsIn);
$("rows").addEventListener("click", (event) => {
  if (event.target.closest(".lanes") && !event.target.closest("button")) {
    player.seek(secondsIn(event));
  }
});
scrub($("overview"), (event) => {
  const box = $("overview").getBoundingClientRect();
  const time = (event.clientX - box.left) / box.width * data.duration;
  $("scroller").scrollLeft = time / data.duration * timeline.lanesWidth -
    timeline.fitWidth / 2;
  return time;
});

$("rows").addEventListener("pointermove", (event) => {
  const item = itemOf.get(event.target.closest(".segment")?.dataset.id);
  const tip = $("tip");
  tip.hidden = !item || event.pointerType === "touch";
  if (tip.hidden) return;
  const parts = [make("b", "", data.labels[item.label]), make("span", "",
    `${clockText(item.start, 2)} – ${clockText(item.end, 2)}`), make("span",
    "", item.isAction ? (item.missed ? "annotated, missed" : "annotated")
      : `score ${item.score.toFixed(3)}` + (item.hit === undefined ? ""
        : item.hit ? " · right" : " · false"))];
  if (item.picture >= 0) {
    const picture = make("img");
    picture.src = data.pictures[item.picture];
    picture.alt = "";
    parts.unshift(picture);
  }
  tip.replaceChildren(...parts);
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14,
    innerWidth - box.width - 8))}px`;
  tip.style.top = `${event.clientY - box.height - 14 > 8
    ? event.clientY - box.height - 14 : event.clientY + 18}px`;
});
$("rows").addEventListener("pointerleave", () => {
  $("tip").hidden = true;
});

// --- Keys -------------------------------------------------------------------

const frame = 1 / (data.fps || 25);
const keys = {
  " ": () => player.toggle(),
  k: () => player.toggle(),
  ArrowLeft: (event) => player.seek(player.time - (event.shiftKey ? 5 : 1)),
  ArrowRight: (event) => player.seek(player.time + (event.shiftKey ? 5 : 1)),
  ",": () => player.seek(player.time - frame),
  ".": () => player.seek(player.time + frame),
  n: () => step(1),
  p: () => step(-1),
  l: () => {
    loops = !loops;
    $("loop").hidden = !loops;
    say(loops ? "Plays the chosen detection again and again" : "Plays on");
  },
  "[": () => setScore(Number(slider.value) - 5 * Number(slider.step)),
  "]": () => setScore(Number(slider.value) + 5 * Number(slider.step)),
  "+": () => timeline.setZoom(timeline.zoom * 1.5),
  "=": () => timeline.setZoom(timeline.zoom * 1.5),
  "-": () => timeline.setZoom(timeline.zoom / 1.5),
  "0": () => timeline.setZoom(1),
  Home: () => player.seek(0),
  End: () => player.seek(data.duration),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) {
    return;
  }
  if (target.matches(".segment") && event.key.startsWith("Arrow")) {
    timeline.move(target, event.key);
    event.preventDefault();
    return;
  }
  // These have keys of their own.
  if (target.matches("[type=range], video")) return;
  if (event.key === " " && target.matches("button, summary, input")) return;
  const act = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (act) {
    act(event);
    event.preventDefault();
  }
});

// --- Controls ---------------------------------------------------------------

let due = 0;
function soon(act) {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(act);
}

slider.addEventListener("input", () => {
  $("trusted").checked = false;
  soon(refresh);
});
$("trusted").addEventListener("change", refresh);
$("zoom-in").addEventListener("click", () =>
  timeline.setZoom(timeline.zoom * 1.5));
$("zoom-out").addEventListener("click", () =>
  timeline.setZoom(timeline.zoom / 1.5));
$("zoom-fit").addEventListener("click", () => timeline.setZoom(1));
$("scroller").addEventListener("scroll", () => timeline.drawTicks());
$("scroller").addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  timeline.setZoom(timeline.zoom * Math.exp(-event.deltaY / 300),
    secondsIn(event), event.clientX -
    $("scroller").getBoundingClientRect().left);
}, {passive: false});
$("help-open").addEventListener("click", () => $("help").showModal());
function arrange() {
  timeline.layout();
  refresh();
  timeline.drawTicks();
}
// The page's own width: the track's height changes with every refresh.
let lastWidth = 0;
new ResizeObserver(() => {
  const width = $("scroller").clientWidth;
  if (width !== lastWidth) {
    lastWidth = width;
    soon(arrange);
  }
}).observe($("scroller"));
addEventListener("themechange", () => soon(arrange));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
  () => soon(arrange));

function firstScore() {
  const scores = predictions.map((item) => item.score).sort((a, b) => b - a);
  const few = data.truth ? Math.max(12, Math.ceil(1.5 * actions.length))
    : FEW_AT_FIRST;
  if (scores.length <= few) return 0;
  const least = Math.floor(scores[few - 1] / slider.step) * slider.step;
  const many = scores.filter((score) => score >= least).length;
  return many > Math.max(MANY_AT_FIRST, few) ? least + Number(slider.step)
    : least;
}

slider.step = topScore < 0.1 ? 0.0001 : 0.01;
slider.max = Math.ceil(topScore / slider.step) * slider.step;
slider.value = firstScore();
if (data.thresholds) {
  $("trusted-box").hidden = false;
  $("trusted").checked = true;
}
const asked = /^#t=([\d.]+)$/.exec(location.hash);
if (asked) player.seek(Number(asked[1]));
player.listeners.push(showTime);
if (data.truth) $("legend").hidden = false;
arrange();
