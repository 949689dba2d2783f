// Keys, controls, and how the page begins.
const withChosen = (act) => (event) => timeline.chosen
  ? act(timeline.chosen, event) : tell("no action is chosen");
const speedBy = (step) => {
  setSpeed(SPEEDS[clamp($("speed").selectedIndex + step, 0,
    SPEEDS.length - 1)]);
  announce(`speed ${$("speed").value}`);
};
// By frames from the middle of one, so that rounding never skips any.
const stepFrames = (count) => player.seek(
  (Math.floor(player.time / frameSeconds + 1e-3) + count) * frameSeconds +
  1e-4);
const moveTime = (count, event) => event.shiftKey
  ? player.seek(player.time + count) : stepFrames(count);
const toggle = (element, on) => element.setAttribute("aria-pressed", on);

const keys = {
  " ": togglePlaying,
  k: togglePlaying,
  a: () => judge("accepted"),
  x: () => judge("rejected"),
  Delete: () => judge("rejected"),
  n: () => goToOpen(1),
  p: () => goToOpen(-1),
  f: (event) => event.shiftKey ? reopen() : finish(),
  reopen,
  c: () => openClasses(),
  "[": withChosen((item, event) =>
    edit.nudge(item, event.shiftKey ? "end" : "start", -1)),
  "]": withChosen((item, event) =>
    edit.nudge(item, event.shiftKey ? "end" : "start", 1)),
  "{": withChosen((item) => edit.nudge(item, "end", -1)),
  "}": withChosen((item) => edit.nudge(item, "end", 1)),
  i: () => edit.here(timeline.chosen, "start"),
  o: () => edit.here(timeline.chosen, "end"),
  s: withChosen((item) => edit.split(item)),
  m: withChosen((item) => edit.merge(item)),
  l: () => setLoops(!loops),
  r: () => setLive(!edit.isLive),
  undo: () => retrace(review.undo()),
  redo: () => retrace(review.redo()),
  ArrowLeft: (event) => moveTime(-1, event),
  ArrowRight: (event) => moveTime(1, event),
  ",": () => speedBy(-1),
  ".": () => speedBy(1),
  "+": () => zoomBy(1.5),
  "=": () => zoomBy(1.5),
  "-": () => zoomBy(1 / 1.5),
  0: () => zoomBy(0),
  Home: () => player.seek(0),
  End: () => player.seek(data.duration),
  Escape: () => drag ? endDrag(false) : edit.isLive ? setLive(false)
    : choose(null),
  "?": () => $("help").showModal(),
};
// Keys beside P on any keyboard, where they bear other signs.
const KEY_OF_CODE = {BracketLeft: "[", BracketRight: "]"};
// The letter that a key has in other alphabets too.
const keyOf = ({key, code}) => key.length > 1 ? key
  : (key > "~" && /^(?:Key|Digit)(.)$/.exec(code)?.[1] || key).toLowerCase();

function setLoops(value) {
  loops = value;
  store("loops", loops ? "1" : "0");
  $("loop").hidden = !loops;
  toggle($("loop-button"), loops);
}

function setLive(value) {
  edit.releaseAll();
  edit.isLive = value;
  $("live-sign").hidden = !value;
  toggle($("live"), value);
  tell(value ? "live marking: hold the key of a class" : "");
  showClasses();
}

function useClass(label) {
  if (timeline.chosen) correct(timeline.chosen, {label});
  else tell(`the next new action is of the class ${data.labels[label]}`);
  edit.lastLabel = label;
}

// A control that the pointer used gives the keys back to the page.
let isByPointer = false;
document.addEventListener("pointerdown", () => {
  isByPointer = true;
}, true);
document.addEventListener("keydown", () => {
  isByPointer = false;
}, true);
document.addEventListener("change", ({target}) => {
  if (isByPointer && !target.matches("[type=number], [type=search]")) {
    target.blur();
  }
});

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  // Until the page is drawn, the field of a closed dialog keeps the focus.
  const target = event.target.closest("dialog") ? document.body : event.target;
  if (target.matches("input:not([type=range], [type=checkbox]), select")) {
    if (["Enter", "Escape"].includes(event.key)) target.blur();
    return;
  }
  const key = keyOf(event);
  if (event.ctrlKey || event.metaKey) {
    const act = key === "y" || (key === "z" && event.shiftKey) ? keys.redo
      : key === "z" ? keys.undo : null;
    if (act && !event.getModifierState("AltGraph")) {
      act();
      event.preventDefault();
      return;
    }
  }
  if (!event.getModifierState("AltGraph") &&
      (event.ctrlKey || event.metaKey || event.altKey)) return;
  if (key === " " && target.matches("button, summary, input")) return;
  // The player has keys of its own while it has the focus.
  if (target.matches("[type=range], video") &&
      /^(Arrow|Home|End| )/.test(key)) return;
  const label = (edit.isLive ? LIVE_KEYS : CLASS_KEYS).indexOf(key);
  let act = keys[key] ?? keys[KEY_OF_CODE[event.code]];
  if (target.matches(".segment") && key.startsWith("Arrow")) {
    act = () => timeline.moveFocus(target, key);
  } else if (label >= 0 && label < data.labels.length) {
    act = () => edit.isLive ? edit.press(key, label) : useClass(label);
  }
  if (!act) return;
  event.preventDefault();
  // Only moving repeats while a key is held.
  if (!event.repeat || /^Arrow|^[[\]{}+=-]$/.test(key)) act(event);
});
document.addEventListener("keyup", (event) =>
  edit.release(keyOf(event)));
addEventListener("blur", () => edit.releaseAll());

// --- Controls ---------------------------------------------------------------

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const item = items.get(button?.dataset.id) ?? timeline.itemAt(event);
  if (isByPointer && event.target.matches("video")) event.target.blur();
  if (isByPointer && button && !button.closest("dialog")) button.blur();
  if (item) choose(item);
  else if (button?.dataset.key) keys[button.dataset.key](event);
  else if (button?.dataset.classKey && !edit.isLive) {
    useClass(CLASS_KEYS.indexOf(button.dataset.classKey));
  }
});
$("classes").addEventListener("pointerdown", (event) => {
  const key = event.target.closest("button")?.dataset.classKey;
  if (!key || !edit.isLive) return;
  edit.press(key, LIVE_KEYS.indexOf(key));
  for (const name of ["pointerup", "pointercancel"]) {
    addEventListener(name, () => edit.release(key), {once: true});
  }
});
for (const edge of ["start", "end"]) {
  $(edge).addEventListener("change", withChosen((item) => {
    const value = $(edge).valueAsNumber;  // none of an empty field
    if (!Number.isNaN(value)) {
      correct(item, {[edge]: clamp(value, 0, data.duration)});
    }
    showChosen();
  }));
}
slider.addEventListener("input", () => {
  $("trusted").checked = false;
  refresh();
});
for (const id of ["trusted", "verdicts", "only", "order"]) {
  $(id).addEventListener("change", refresh);
}
$("speed").append(...SPEEDS.map((rate) =>
  make("option", {value: rate}, `${rate}×`)));
$("speed").addEventListener("change", () => setSpeed(Number($("speed").value)));
setSpeed(1);
$("order").value = stored("order") ?? "time";
$("order").addEventListener("change", () =>
  store("order", $("order").value));
$("reaction").value = stored("reaction") ?? DEFAULT_REACTION;
$("reaction").addEventListener("change", () =>
  store("reaction", $("reaction").value));

// --- The beginning ----------------------------------------------------------

$("trusted").checked = true;
$("trusted-box").hidden = !Object.keys(data.thresholds).length;
fillClasses();
setLoops(loops);
showClasses();
arrange();
if (player.works) player.watch();
choose(items.get(location.hash.slice(1)) ?? nextOpen(1, null));
