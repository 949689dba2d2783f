// What is shown, chosen and decided.
// Browsers keep a player's time in whole microseconds.
const CLOCK_SLACK = 1e-4;
const MAX_LISTED = 80;
const MAX_CHIPS = 6;
const SPEEDS = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8];
const DEFAULT_REACTION = 0.25;
const SIGNS = {open: "?", accepted: "✓", rejected: "✗"};

const slider = $("score");
let shown = [];
let loops = stored("loops") === "1";

function stored(name) {
  try {
    return localStorage.getItem(`review-${name}`);
  } catch {
    return null;
  }
}
function store(name, value) {
  try {
    localStorage.setItem(`review-${name}`, value);
  } catch { /* no storage */ }
}
function announce(text) {
  $("announcer").textContent = text;
}

// Says it where it is seen, too, until another action is chosen.
function tell(text) {
  announce(text);
  $("hint").textContent = text;
}

const threshold = (item) => data.thresholds[data.labels[item.label]] ?? 0;
const reaches = (item) => item.verdict !== "open" || item.score >= (
  $("trusted").checked ? threshold(item) : Number(slider.value));
const isShown = (item) => reaches(item) &&
  (!$("verdicts").value || $("verdicts").value === item.verdict) &&
  (!$("only").value || $("only").value === data.labels[item.label]);
// In the order of the list: by time, or the scores near the threshold first.
const rank = (item) => $("order").value === "time" ? item.start
  : item.score === undefined ? Infinity : Math.abs(item.score -
    threshold(item));
const inOrder = (a, b) => (rank(a) - rank(b) || 0) || a.start - b.start ||
  (a.id < b.id ? -1 : 1);

// Draws everything that depends on the actions.
function refresh() {
  shown = [...items.values()].filter(isShown).sort(inOrder);
  timeline.draw(shown, []);
  timeline.active = new Set();
  drawList();
  showProgress();
  showTime();
}

function showProgress() {
  const all = [...items.values()].filter(reaches);
  const left = all.filter((item) => item.verdict === "open").length;
  const text = `${all.length - left} of ${all.length} checked`;
  $("progress").textContent = text + (review.isComplete ? ", complete" : "");
  document.title = `(${all.length - left}/${all.length}) ${data.title}`;
  $("shown").textContent = shown.length;
  $("finish").firstChild.textContent = review.isComplete ? "Next video "
    : "Complete ";
  $("reopen").hidden = !review.isComplete;
  $("undo").disabled = !review.done.length;
  $("redo").disabled = !review.undone.length;
  $("score-value").textContent = Number(slider.value).toFixed(2);
  $("slider").classList.toggle("off", $("trusted").checked);
}

function listEntry(item) {
  const button = make("button", {type: "button", ariaLabel: describe(item),
    className: classNames("entry", item.verdict,
      item === timeline.chosen && "chosen",
      timeline.active.has(item) && "playing")},
  make("span", {className: "sign", ariaHidden: "true"}, SIGNS[item.verdict]),
  make("span", {className: "blank"}),
  make("span", {className: "what column"},
    make("b", {}, data.labels[item.label]),
    make("span", {className: "soft"},
      `${clockText(item.start)} – ${clockText(item.end)}`)),
  make("span", {}, item.score === undefined ? "" : scoreText(item.score)));
  button.dataset.id = item.id;
  return make("li", {className: hueOf(item)}, button);
}

// The entries around the chosen one; longer lists would slow every change.
function drawList() {
  const at = Math.max(shown.indexOf(timeline.chosen), 0);
  const first = clamp(at - MAX_LISTED / 2, 0,
    Math.max(shown.length - MAX_LISTED, 0));
  const note = (count, text) => count > 0 ? [make("li",
    {className: "empty soft"}, `${count} ${text}`)] : [];
  const focused = document.activeElement?.closest("#list .entry");
  $("list").replaceChildren(...note(first, "before these"),
    ...shown.slice(first, first + MAX_LISTED).map(listEntry),
    ...note(shown.length - first - MAX_LISTED, "after these"));
  if (!shown.length) {
    $("list").append(make("li", {className: "empty soft"}, items.size
      ? "Nothing is shown: change the filters or the score."
      : "No action yet: mark one with I and O" +
        `${data.labels.length ? ", or by dragging" : ""}.`));
  }
  const entry = $("list").querySelector(".chosen");
  if (entry) {
    $("list").scrollTop = entry.offsetTop - $("list").offsetTop -
      $("list").clientHeight / 3;
  }
  if (focused) {
    ($("list").querySelector(`[data-id="${focused.dataset.id}"]`) ?? entry)
      ?.focus({preventScroll: true});
  }
}

function showChosen() {
  const item = timeline.chosen;
  $("chosen").textContent = item ? describe(item) : "no action is chosen";
  // A class can be chosen for the next new action, too.
  for (const control of $("edit").querySelectorAll(
    "button:not([data-key=c]), input")) {
    control.disabled = !item;
  }
  for (const edge of ["start", "end"]) {
    $(edge).value = item ? item[edge].toFixed(3) : "";
  }
}

function showClasses() {
  const keys = edit.isLive ? LIVE_KEYS : CLASS_KEYS;
  $("classes").replaceChildren(...data.labels.slice(0, keys.length)
    .map((name, label) => {
      const button = make("button", {type: "button", className:
        classNames(hueOf({label}), edit.held.has(keys[label]) && "held")},
      make("span", {className: "key"}), `${name} `,
      make("kbd", {}, keys[label].toUpperCase()));
      button.dataset.classKey = keys[label];
      return button;
    }));
}

// Draws everything that depends on the time.
function showTime() {
  const time = player.time;
  if (loops && timeline.chosen && player.playing && !edit.isLive &&
      time >= timeline.chosen.end) {
    player.seek(timeline.chosen.start);
    return;
  }
  $("clock").textContent = clockText(time, 2);
  timeline.showTime();
  const now = new Set(shown.filter((item) =>
    item.start <= time + CLOCK_SLACK && time < item.end));
  const before = timeline.active;
  if (now.size !== before.size || [...now].some((one) => !before.has(one))) {
    timeline.active = now;
    const chips = [...now].slice(0, MAX_CHIPS);
    $("now").replaceChildren(...chips.map((item) => make("li",
      {className: classNames("chip", hueOf(item))},
      make("b", {}, data.labels[item.label]), SIGNS[item.verdict])));
    for (const item of new Set([...before, ...now])) {
      for (const element of [timeline.elements.get(item.id),
        $("list").querySelector(`[data-id="${item.id}"]`)]) {
        element?.classList.toggle("playing", now.has(item));
      }
    }
  }
  if (!player.works) frames.show();
}

function choose(item, {seeks = true} = {}) {
  timeline.choose(item ?? null);
  $("hint").textContent = "";
  if (item) {
    if (seeks) player.seek(item.start);
    timeline.reveal(item.start);
    timeline.drawScrolled();
    announce(describe(item));
  }
  drawList();
  showChosen();
}

// The next action to check after `item`; from the end on to the first.
function nextOpen(direction, item = timeline.chosen) {
  const open = shown.filter((one) => one.verdict === "open" && one !== item);
  if (direction < 0) open.reverse();
  return (item && open.find((one) => direction * inOrder(one, item) > 0)) ??
    open[0];
}

async function goToOpen(direction) {
  if ($("order").value === "all" && direction > 0) {
    await goToDoubtful();
    return;
  }
  const next = nextOpen(direction);
  if (next) choose(next);
  else tell("nothing is left to check");
}

async function untilSaved() {
  while (!review.isSaved) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// Goes to the most doubtful detection of all videos.
async function goToDoubtful() {
  const passed = timeline.chosen?.id ?? "";
  await untilSaved();
  const {video, id, error} = await ask(
    `../doubtful/${data.number}?passed=${passed}`);
  if (error) tell(error);
  else if (id === null) tell("nothing is left to check");
  else if (video === data.number) choose(items.get(id));
  else location.href = `${video}#${id}`;
}

function judge(verdict) {
  const item = timeline.chosen;
  if (!item) {
    goToOpen(1);
    return;
  }
  // An action that a person added and rejects is just removed.
  review.change({[item.id]: verdict === "rejected" && !originals.has(item.id)
    ? null : {...accepted(item), verdict}});
  const next = nextOpen(1, item);
  if ($("order").value === "all") {
    goToDoubtful();
  } else if (next) {
    choose(next);
  } else {
    if (!items.has(item.id)) timeline.choose(null);
    showChosen();
    tell("all are checked: press F if the video is complete");
  }
}

async function finish() {
  if (!review.isComplete) review.change({}, true);
  await untilSaved();
  if (!review.isComplete) return;  // refused: another window was first
  const {video, error} = await ask(`../next/${data.number}`);
  if (error) tell(error);
  else location.href = video === null ? "../" : String(video);
}

function reopen() {
  if (review.isComplete) review.change({}, false);
  tell("the video is not complete");
}

function retrace(ids) {
  const item = items.get(ids[0]);
  if (item) choose(item);
  else if (!items.has(timeline.chosen?.id)) choose(null);
  else showChosen();
  showClasses();
}
