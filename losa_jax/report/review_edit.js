// Changes of actions: by keys, by dragging, and live while the video plays.
const EDGE_PIXELS = 8;
const DRAG_PIXELS = 3;
const CLASS_KEYS = [..."123456789"];
// In live mode letters are keys of classes too, but for R, which ends it.
const LIVE_KEYS = [..."123456789qwetyuiopasdfghjklzxcvbnm"];

const accepted = (item, values = {}) => {
  const {start, end, label} = {...item, ...values};
  return {label: data.labels[label], start_seconds: start, end_seconds: end,
    verdict: "accepted"};
};

// Corrects an action, which accepts it.
function correct(item, values) {
  const {start, end} = {...item, ...values};
  if (!(end - start > frameSeconds / 2)) {
    tell("an action must end after it starts");
    return;
  }
  review.change({[item.id]: accepted(item, values)});
  showChosen();
}

function addAction(label, start, end) {
  const id = newId();
  const [first, last] = [snapped(Math.min(start, end)),
    snapped(Math.max(start, end))];
  const from = Math.min(first, data.duration - frameSeconds);
  review.change({[id]: accepted({label, start: from,
    end: Math.max(last, from + frameSeconds)})});
  edit.lastLabel = label;
  return items.get(id);
}

const edit = {
  lastLabel: 0,
  // Where a new action starts, after I with none chosen.
  newStart: null,
  held: new Map(),
  isLive: false,

  // Moves an edge by whole frames.
  nudge(item, edge, count) {
    const other = edge === "start" ? item.end - frameSeconds
      : item.start + frameSeconds;
    const moved = snapped(snapped(item[edge]) + count * frameSeconds);
    const value = clamp(moved, edge === "start" ? 0 : other,
      edge === "start" ? other : data.duration);
    correct(item, {[edge]: value});
    player.seek(value);
  },

  // Sets an edge to the playing position.
  here(item, edge) {
    const time = snapped(player.time);
    if (item) {
      correct(item, {[edge]: time});
    } else if (edge === "start") {
      this.newStart = time;
      tell(`a new action starts at ${clockText(time, 2)}`);
    } else if (this.newStart === null) {
      tell("press I where the new action starts");
    } else {
      const start = this.newStart;
      const add = () => {
        choose(addAction(this.lastLabel, start, time));
        this.newStart = null;
      };
      if (data.labels.length) add();
      else openClasses(add);
    }
  },

  split(item) {
    const time = snapped(player.time);
    if (time <= item.start || time >= item.end) {
      tell("the playing position is outside the chosen action");
      return;
    }
    review.change({[item.id]: accepted(item, {end: time}),
      [newId()]: accepted(item, {start: time})});
    showChosen();
  },

  // Joins an action with the next one of its class.
  merge(item) {
    const next = [...items.values()].filter((one) => one !== item &&
      one.label === item.label && one.verdict !== "rejected" &&
      isShown(one) && one.start >= item.start)
      .sort((a, b) => a.start - b.start)[0];
    if (!next) {
      tell("no later action of this class");
      return;
    }
    review.change({
      [item.id]: accepted(item, {end: Math.max(item.end, next.end)}),
      [next.id]: originals.has(next.id)
        ? {...accepted(next), verdict: "rejected"} : null});
    showChosen();
  },

  // --- Live marking ---

  press(key, label) {
    if (this.held.has(key)) return;
    this.held.set(key, {label, start: player.time});
    if (!player.playing) togglePlaying();
    showClasses();
  },

  release(key) {
    const one = this.held.get(key);
    if (!one) return;
    this.held.delete(key);
    const delay = reactionSeconds() * (player.works
      ? player.video.playbackRate : frames.rate);
    choose(addAction(one.label, one.start - delay, player.time - delay),
      {seeks: false});
    showClasses();
  },

  releaseAll() {
    for (const key of [...this.held.keys()]) this.release(key);
  },
};

const reactionSeconds = () => clamp(Number($("reaction").value) || 0, 0, 2);

// --- Dragging ---------------------------------------------------------------

let drag = null;

function edgeAt(element, event) {
  const box = element.getBoundingClientRect();
  const reach = Math.min(EDGE_PIXELS, box.width / 3);
  if (event.clientX < box.left + reach) return "start";
  return event.clientX > box.right - reach ? "end" : "both";
}

const labelAt = (event) => document.elementsFromPoint(event.clientX,
  event.clientY).find((one) => one.matches(".lanes"))?.dataset.label;

// The keys stay those of the page, and do not become a segment's or a field's.
$("rows").addEventListener("mousedown", (event) => {
  event.preventDefault();
  document.activeElement.blur();
});
$("rows").addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  const item = timeline.itemAt(event);
  const element = item && timeline.elementOf(item);
  const lanes = event.target.closest(".lanes");
  if (item) {
    drag = {item, element, edge: edgeAt(element, event), start: item.start,
      end: item.end, label: item.label};
  } else if (lanes && event.pointerType !== "touch") {
    const seconds = secondsIn($("ruler"), event);
    drag = {element: null, edge: "end", start: seconds, end: seconds,
      label: Number(lanes.dataset.label), lanes};
  } else {
    return;
  }
  Object.assign(drag, {x: event.clientX, y: event.clientY, hasMoved: false,
    from: {start: drag.start, end: drag.end}});
});

$("rows").addEventListener("pointermove", (event) => {
  if (!drag) {
    const element = event.target.closest(".segment");
    element?.classList.toggle("at-edge", edgeAt(element, event) !== "both");
    showTip(timeline.itemAt(event), event);
    return;
  }
  if (!(event.buttons & 1)) {  // it was released elsewhere
    endDrag(false);
    return;
  }
  const pixels = event.clientX - drag.x;
  // Up or down leads to another class.
  const far = Math.hypot(pixels,
    drag.edge === "both" ? event.clientY - drag.y : 0);
  if (!drag.hasMoved && far < DRAG_PIXELS) return;
  if (!drag.hasMoved) {
    // Only now: a captured click would not reach its button.
    drag.hasMoved = true;
    $("rows").setPointerCapture(event.pointerId);
  }
  moveDrag(pixels / timeline.lanesWidth * data.duration, event);
});

function moveDrag(seconds, event) {
  const {edge, from, item} = drag;
  if (edge === "both") {
    const length = from.end - from.start;
    drag.start = clamp(snapped(from.start + seconds), 0,
      data.duration - length);
    drag.end = drag.start + length;
    drag.label = Number(labelAt(event) ?? drag.label);
  } else if (!item) {
    [drag.start, drag.end] = [from.start, from.start + seconds]
      .map(snapped).sort((a, b) => a - b);
  } else {
    drag[edge] = edge === "start"
      ? clamp(snapped(from.start + seconds), 0, from.end - frameSeconds)
      : clamp(snapped(from.end + seconds), from.start + frameSeconds,
        data.duration);
  }
  if (!drag.element) {
    drag.element = make("div", {className: "segment"});
    drag.lanes.lastElementChild.append(drag.element);
  }
  const [left, width] = timeline.place(drag);
  drag.element.classList.add("dragged");
  Object.assign(drag.element.style, {left: `${left}%`, width: `${width}%`});
  showTip(drag, event);
  // The frame at the moved edge, but no more seeks than the player can do.
  if (!(player.isLoaded && player.video.seeking)) {
    player.seek(edge === "end" ? drag.end - frameSeconds / 2 : drag.start);
  }
}

function endDrag(keeps) {
  const done = drag;
  drag = null;
  $("tip").hidden = true;
  if (!done?.hasMoved) return;
  // The click that follows is no click on what lies there.
  const stop = (event) => event.stopPropagation();
  addEventListener("click", stop, true);
  setTimeout(() => removeEventListener("click", stop, true));
  const {start, end, label} = done;
  if (keeps && done.item) {
    correct(done.item, {start, end, label});
    choose(done.item, {seeks: false});
  } else if (keeps) {
    choose(addAction(label, start, end), {seeks: false});
  } else {
    refresh();
  }
}
$("rows").addEventListener("pointerup", () => endDrag(true));
$("rows").addEventListener("pointercancel", () => endDrag(false));
$("rows").addEventListener("pointerleave", () => {
  if (!drag) $("tip").hidden = true;
});

function showTip(item, event) {
  const tip = $("tip");
  tip.hidden = !item || (event.pointerType === "touch" && !drag);
  if (tip.hidden) return;
  tip.replaceChildren(make("b", {}, data.labels[item.label]),
    make("div", {}, `${clockText(item.start, 2)} – ${clockText(item.end, 2)}`),
    item === drag ? `${(item.end - item.start).toFixed(2)} s` : verdict(item));
  const above = event.clientY - tip.offsetHeight - 14;
  tip.style = `left: ${clamp(event.clientX + 14, 8,
    innerWidth - tip.offsetWidth - 8)}px; ` +
    `top: ${above > 8 ? above : event.clientY + 18}px`;
}
