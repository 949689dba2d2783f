// What is shown at a score and at a time; pointers and keys.
const HIT_IOU = 0.5;
// Browsers keep a player's time in whole microseconds.
const CLOCK_SLACK = 1e-4;
const MAX_LISTED = 250;
const MAX_CHIPS = 8;

const topScore = data.predictions.reduce((top, row) =>
  Math.max(top, row[3]), 1e-9);
const predictions = data.predictions.map(([start, end, label, score, image],
  index) => ({id: `p${index}`, start, end, label, score, image,
  strength: Math.max(score, 0) / topScore}));
const actions = (data.truth ?? []).map(([start, end, label, image],
  index) => ({id: `t${index}`, start, end, label, image, isAction: true}))
  .sort((a, b) => a.start - b.start);
const itemOf = new Map([...predictions, ...actions].map((item) =>
  [item.id, item]));
const slider = $("score");
let shown = [];
let loops = false;

function isShown(item) {
  return item.score >= (data.thresholds && $("trusted").checked
    ? data.thresholds[item.label] : Number(slider.value));
}

// By descending score, each detection matches the free action of its class
// that it overlaps most, as for mAP.
function matchActions() {
  const free = new Set(actions);
  for (const item of predictions) item.hit = undefined;
  for (const item of [...shown].sort((a, b) => b.score - a.score)) {
    let [best, most] = [null, HIT_IOU];
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

// Draws everything that depends on the score.
function refresh() {
  shown = predictions.filter(isShown);
  if (data.truth) {
    matchActions();
    const hits = shown.filter((item) => item.hit).length;
    $("verdict").textContent = `${hits} of ${actions.length} actions detected,` +
      ` ${shown.length - hits} false (tIoU ${HIT_IOU})`;
  }
  $("shown").textContent = shown.length === predictions.length
    ? `${shown.length}` : `${shown.length} of ${predictions.length}`;
  $("score-value").textContent = Number(slider.value).toFixed(
    topScore < 0.1 ? 4 : 2);
  $("slider").classList.toggle("off", $("trusted").checked);
  timeline.draw(shown, actions);
  drawList();
  for (const row of $("body").children) {
    const item = itemOf.get(row.dataset.id);
    row.hidden = !item.isAction && !isShown(item);
  }
  timeline.active = new Set();
  showTime();
}

const thumbnail = (item) => item.image < 0
  ? make("span", {className: "blank"})
  : make("img", {src: data.images[item.image], alt: ""});

function listEntry(item) {
  const button = make("button", {className: "entry", type: "button",
    ariaLabel: describe(item)},
  thumbnail(item),
  make("span", {className: "what column"},
    make("b", {}, data.labels[item.label]),
    make("span", {className: "soft"},
      `${clockText(item.start)} – ${clockText(item.end)}`),
    make("span", {className: "meter"},
      make("i", {style: `width: ${100 * item.strength}%`}))),
  make("b", {}, scoreText(item.score)));
  if (item.hit !== undefined) {
    button.append(make("span", {className: item.hit ? "right" : "wrong"},
      item.hit ? "✓" : "✗"));
  }
  button.dataset.id = item.id;
  return make("li", {className: hueOf(item)}, button);
}

function drawList() {
  const note = (text) => make("li", {className: "empty soft"}, text);
  const lines = shown.slice(0, MAX_LISTED).map(listEntry);
  if (!predictions.length) {
    lines.push(note("Nothing was detected."));
  } else if (!lines.length) {
    lines.push(note("No detection reaches the score: move the slider to see " +
      "weaker ones."));
  } else if (shown.length > MAX_LISTED) {
    lines.push(note(`${shown.length - MAX_LISTED} more: raise the score, or ` +
      "look at the table."));
  }
  $("list").replaceChildren(...lines);
}

// Draws everything that depends on the time.
function showTime() {
  const time = player.time;
  if (loops && timeline.chosen && player.playing &&
      time >= timeline.chosen.end) {
    player.seek(timeline.chosen.start);
    return;
  }
  $("clock").textContent = clockText(time);
  timeline.showTime();
  const now = new Set([...actions, ...shown].filter((item) =>
    item.start <= time + CLOCK_SLACK && time < item.end));
  const {active} = timeline;
  if (now.size !== active.size || [...now].some((one) => !active.has(one))) {
    timeline.active = now;
    showActive();
  }
  if (!player.works) showStill(time);
}

function showActive() {
  const chips = [...timeline.active].sort((a, b) =>
    (b.score ?? Infinity) - (a.score ?? Infinity) || 0).slice(0, MAX_CHIPS);
  $("now").replaceChildren(...chips.map((item) => make("li",
    {className: classNames("chip", hueOf(item), item.isAction && "action")},
    make("b", {}, data.labels[item.label]),
    make("span", {}, item.isAction ? "annotated" : scoreText(item.score)))));
  for (const element of document.querySelectorAll("[data-id]")) {
    element.classList.toggle("playing",
      timeline.active.has(itemOf.get(element.dataset.id)));
  }
  const first = $("list").querySelector(".playing");
  if (first && !$("list").matches(":hover, :focus-within")) {
    $("list").scrollTop = first.offsetTop - $("list").offsetTop -
      $("list").clientHeight / 3;
  }
}

// Where the video cannot play: the thumbnail that is nearest in time.
function showStill(time) {
  const distance = (item) => Math.abs(item.start + item.end - 2 * time);
  const near = [...timeline.active].filter((item) => item.image >= 0)
    .sort((a, b) => distance(a) - distance(b))[0];
  $("still").hidden = !near;
  if (near) $("still").src = data.images[near.image];
}

function go(item) {
  timeline.choose(item);
  player.seek(item.start);
  timeline.reveal(item.start);
  $("announcer").textContent = describe(item);
}

function goToNext(direction) {
  const time = player.time;
  const items = shown.length ? shown : actions;
  const next = direction > 0
    ? items.find((item) => item.start > time + 0.01)
    : items.findLast((item) => item.start < time - 0.01);
  if (next) go(next);
}

function setScore(value) {
  slider.value = value;
  $("trusted").checked = false;
  refresh();
}

// --- Pointers ---------------------------------------------------------------

document.addEventListener("click", (event) => {
  const id = event.target.closest("button")?.closest("[data-id]")?.dataset.id;
  const item = itemOf.get(id) ?? timeline.itemAt(event);
  if (item) go(item);
});

$("rows").addEventListener("pointermove", (event) => {
  const item = timeline.itemAt(event);
  const tip = $("tip");
  tip.hidden = !item || event.pointerType === "touch";
  if (tip.hidden) return;
  const times = `${clockText(item.start, 2)} – ${clockText(item.end, 2)}`;
  tip.replaceChildren(thumbnail(item), make("b", {}, data.labels[item.label]),
    make("div", {}, times), verdict(item));
  const above = event.clientY - tip.offsetHeight - 14;
  tip.style = `left: ${clamp(event.clientX + 14, 8,
    innerWidth - tip.offsetWidth - 8)}px; ` +
    `top: ${above > 8 ? above : event.clientY + 18}px`;
});
$("rows").addEventListener("pointerleave", () => {
  $("tip").hidden = true;
});

// --- Keys and controls ------------------------------------------------------

const frameSeconds = 1 / (data.fps || 25);
const seekBy = (seconds) => player.seek(player.time + seconds);
const scoreBy = (steps) =>
  setScore(Number(slider.value) + steps * Number(slider.step));
const keys = {
  " ": () => player.toggle(),
  k: () => player.toggle(),
  ArrowLeft: (event) => seekBy(event.shiftKey ? -5 : -1),
  ArrowRight: (event) => seekBy(event.shiftKey ? 5 : 1),
  ",": () => seekBy(-frameSeconds),
  ".": () => seekBy(frameSeconds),
  n: () => goToNext(1),
  p: () => goToNext(-1),
  l: () => {
    loops = !loops;
    $("loop").hidden = !loops;
    $("announcer").textContent = loops ? "repeating" : "not repeating";
  },
  "[": () => scoreBy(-5),
  "]": () => scoreBy(5),
  "+": () => zoomBy(1.5),
  "=": () => zoomBy(1.5),
  "-": () => zoomBy(1 / 1.5),
  0: () => timeline.setZoom(1),
  Home: () => player.seek(0),
  End: () => player.seek(data.duration),
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const {target, key} = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open ||
      // These have keys of their own.
      target.matches("[type=range], video") ||
      (key === " " && target.matches("button, summary, input"))) {
    return;
  }
  const act = target.matches(".segment") && key.startsWith("Arrow")
    ? () => timeline.moveFocus(target, key)
    : keys[key] ?? keys[key.toLowerCase()];
  if (act) {
    act(event);
    event.preventDefault();
  }
});

slider.addEventListener("input", () => setScore(slider.value));
$("trusted").addEventListener("change", refresh);
$("help-open").addEventListener("click", keys["?"]);
// The score that shows a few detections at first.
function firstScore() {
  const scores = predictions.map((item) => item.score).sort((a, b) => b - a);
  const few = data.truth ? Math.max(12, Math.ceil(1.5 * actions.length)) : 30;
  return scores.length <= few ? 0
    : Math.floor(scores[few - 1] / slider.step) * slider.step;
}

slider.step = topScore < 0.1 ? 0.0001 : 0.01;
slider.max = Math.ceil(topScore / slider.step) * slider.step;
slider.value = firstScore();
$("trusted").checked = data.thresholds !== null;
$("trusted-box").hidden = data.thresholds === null;
$("legend").hidden = $("verdict").hidden = data.truth === null;
arrange();
if (player.works) player.watch();
const moment = /^#t=([\d.]+)$/.exec(location.hash);
if (moment) player.seek(Number(moment[1]));
