// Rows of segments below one ruler, with zoom.
const MAX_LANES = 5;
// With more classes only those with a segment get a row.
const MANY_ROWS = 12;
const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800,
  3600, 7200];
const TICK_PIXELS = 78;
// The largest zoom: a second at this width, but at least this many times.
const PIXELS_PER_SECOND = 160;
const LEAST_ZOOM = 8;
// More segments than this in and near the view are painted on canvases.
const MAX_ELEMENTS = 400;
// As of the stylesheet.
const LANE_PIXELS = 22;
const TRUTH_LANE_PIXELS = 12;

const hueOf = (item) => `hue${item.label % 12}`;
const classNames = (...names) => names.filter(Boolean).join(" ");
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const timeline = {
  zoom: 1,
  chosen: null,
  // Items at the playing position.
  active: new Set(),
  // The rows that `draw` was given, and all of their lanes with items.
  rows: [],
  lanes: [],
  // The buttons of the segments that are drawn, by id, and the seconds that
  // they cover: those in view and a view's width on both sides of it.
  elements: new Map(),
  drawn: [0, 0],
  // {lane: its items} of the lanes that are painted.
  painted: new Map(),

  draw(predictions, actions) {
    const ofLabel = (items) => {
      const lists = data.labels.map(() => []);
      for (const item of items) lists[item.label].push(item);
      return lists;
    };
    const [truths, owns] = [ofLabel(actions), ofLabel(predictions)];
    this.rows = data.labels.map((name, label) => ({name, label,
      truth: truths[label], count: owns[label].length,
      lanes: packed(owns[label])})).filter((row) =>
      data.labels.length <= MANY_ROWS || row.count || row.truth.length);
    this.lanes = this.rows.flatMap((row) => [row.truth, ...row.lanes])
      .filter((lane) => lane.length);
    this.drawRows();
    paintOverview([...predictions, ...actions]);
  },

  // The seconds in view.
  get view() {
    const left = $("scroller").scrollLeft / this.lanesWidth * data.duration;
    return [left, left + this.fitWidth / this.lanesWidth * data.duration];
  },

  drawRows() {
    const focused = document.activeElement?.closest("#rows .segment")
      ?.dataset.id;
    const [left, right] = this.view;
    this.drawn = [left - (right - left), right + (right - left)];
    this.elements.clear();
    this.painted.clear();
    this.isPainted = this.lanes.reduce((count, lane) =>
      count + lane.filter((item) => this.isDrawn(item)).length, 0) >
      MAX_ELEMENTS;
    const rows = this.rows.map((row) => this.row(row));
    const empty = data.labels.length - rows.length;
    if (empty) {
      rows.push(make("div", {className: "row rest soft", role: "listitem"},
        make("span", {}, `${empty} more ${empty === 1 ? "class" : "classes"}` +
          " with nothing to show")));
    }
    $("rows").replaceChildren(...rows);
    this.elements.get(focused)?.focus({preventScroll: true});
    this.updateTabStop();
  },

  isDrawn(item) {
    return item.end >= this.drawn[0] && item.start <= this.drawn[1];
  },

  // Draws what scrolling has brought into view.
  drawScrolled() {
    const [left, right] = this.view;
    if (left < Math.max(this.drawn[0], 0) ||
        right > Math.min(this.drawn[1], data.duration) + 1e-6) {
      this.drawRows();
    }
  },

  row({name, label, truth, count, lanes: own}) {
    const lane = (items, className = "lane") => {
      const element = make("div", {className});
      const list = items.filter((item) => this.isDrawn(item));
      if (!this.isPainted || !list.length) {
        element.append(...list.map((item) => this.segment(item)));
        return element;
      }
      paintLane(element, list, Math.max(this.drawn[0], 0),
        Math.min(this.drawn[1], data.duration),
        className === "lane" ? LANE_PIXELS : TRUTH_LANE_PIXELS);
      this.painted.set(element, list);
      if (list.includes(this.chosen)) {
        element.append(this.segment(this.chosen));
      }
      return element;
    };
    const lanes = make("div", {className: "lanes", role: "group", ariaLabel:
      `${name}: ${count} detections` +
      (data.truth ? `, ${truth.length} annotated` : "")});
    lanes.dataset.label = label;
    if (data.truth) lanes.append(lane(truth, "lane truth"));
    lanes.append(...own.map((items) => lane(items)));
    return make("div", {className: `row ${hueOf({label})}`, role: "listitem"},
      make("div", {className: "name", title: name},
        make("span", {className: "key"}),
        make("span", {className: "text"}, name)),
      lanes);
  },

  segment(item) {
    const [left, width] = this.place(item);
    const button = make("button", {
      type: "button",
      tabIndex: -1,
      ariaLabel: describe(item),
      className: classNames("segment", item.isAction && "action",
        item.missed && "missed", item.hit === false && "false", item.verdict,
        this.active.has(item) && "playing", item === this.chosen && "chosen"),
      style: `left: ${left}%; width: ${width}%; ` +
        `--score: ${item.strength ?? 1}`,
    });
    button.dataset.id = item.id;
    if (item.score !== undefined && width * this.lanesWidth > 3400) {
      button.textContent = scoreText(item.score);
    }
    this.elements.set(item.id, button);
    return button;
  },

  // Left edge and width of a segment in percent of its lane.
  place(item) {
    const share = (seconds) => 100 * clamp(seconds / data.duration, 0, 1);
    return [share(item.start), share(item.end) - share(item.start)];
  },

  // The item below a pointer.
  itemAt(event) {
    const lane = event.target.closest(".lane");
    const id = event.target.closest(".segment")?.dataset.id;
    if (id) return this.lanes.flat().find((item) => item.id === id);
    const near = NEAR_PIXELS / this.lanesWidth * data.duration;
    const at = secondsIn($("ruler"), event);
    return this.painted.get(lane)?.filter((item) =>
      item.start - near <= at && at <= item.end + near)
      .sort((a, b) => a.end - a.start - (b.end - b.start))[0];
  },

  // The element of an item; a painted one gets an element.
  elementOf(item) {
    for (const [lane, list] of this.elements.has(item.id) ? []
      : this.painted) {
      if (list.includes(item)) lane.append(this.segment(item));
    }
    return this.elements.get(item.id);
  },

  // The Tab key stops at one segment; arrow keys lead to the others.
  updateTabStop() {
    const id = document.activeElement?.dataset?.id ?? this.chosen?.id;
    const stop = this.elements.get(id) ?? [...this.elements.values()][0];
    for (const button of this.elements.values()) {
      button.tabIndex = button === stop ? 0 : -1;
    }
  },

  moveFocus(button, key) {
    const isIt = (item) => item.id === button.dataset.id;
    const at = this.lanes.findIndex((lane) => lane.some(isIt));
    const index = this.lanes[at].findIndex(isIt);
    const step = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
    const distance = (one) =>
      Math.abs(one.start - this.lanes[at][index].start);
    const next = key === "ArrowLeft" || key === "ArrowRight"
      ? this.lanes[at][index + step]
      : this.lanes[at + step]?.reduce((best, one) =>
        distance(one) < distance(best) ? one : best);
    if (!next) return;
    this.reveal(next.start);
    this.drawScrolled();
    this.elementOf(next)?.focus();
    this.updateTabStop();
  },

  choose(item) {
    this.elements.get(this.chosen?.id)?.classList.remove("chosen");
    this.chosen = item;
    if (item) this.elementOf(item)?.classList.add("chosen");
    this.updateTabStop();
  },

  // Keeps `seconds` at `pixels` from the left edge of the scroller.
  setZoom(zoom, seconds = player.time,
    pixels = this.namesWidth + this.fitWidth / 2) {
    this.zoom = zoom;
    this.layout();
    $("scroller").scrollLeft = seconds / data.duration * this.lanesWidth +
      this.namesWidth - pixels;
    this.drawTicks();
  },

  layout() {
    const scroller = $("scroller");
    this.namesWidth = parseFloat(getComputedStyle(scroller)
      .getPropertyValue("--names"));
    this.fitWidth = Math.max(scroller.clientWidth - this.namesWidth, 50);
    this.zoom = clamp(this.zoom, 1, Math.max(
      LEAST_ZOOM, data.duration * PIXELS_PER_SECOND / this.fitWidth));
    this.lanesWidth = this.fitWidth * this.zoom;
    $("track").style.width = `${this.lanesWidth + this.namesWidth}px`;
    $("zoom-value").textContent =
      `${Number(this.zoom.toFixed(this.zoom < 10 ? 1 : 0))}×`;
    refresh();
  },

  // Draws the ticks in view, and the frame of the view in the overview.
  drawTicks() {
    const {scrollLeft, clientWidth} = $("scroller");
    const perSecond = this.lanesWidth / data.duration;
    const step = TICKS.find((one) => one * perSecond >= TICK_PIXELS) ??
      TICKS.at(-1);
    const last = Math.min((scrollLeft + clientWidth) / perSecond,
      data.duration);
    const ticks = [];
    for (let i = Math.floor(scrollLeft / perSecond / step);
      i * step <= last; i += 1) {
      const hasRoom = (data.duration - i * step) * perSecond >= 44;
      ticks.push(make("span", {className: "tick soft",
        style: `left: ${i * step * perSecond}px`},
      hasRoom ? clockText(i * step, step < 1 ? 1 : 0) : ""));
    }
    $("ruler").replaceChildren(...ticks);
    const grid = `${step * perSecond}px`;
    if ($("track").style.getPropertyValue("--grid") !== grid) {
      $("track").style.setProperty("--grid", grid);
    }
    $("view").hidden = this.zoom <= 1.001;
    $("view").style = `left: ${100 * scrollLeft / this.lanesWidth}%; ` +
      `width: ${100 / this.zoom}%`;
  },

  showTime() {
    const at = `${clamp(100 * player.time / data.duration, 0, 100)}%`;
    // Only where it is drawn: every element below would inherit it.
    for (const element of [$("overview"), $("ruler"), $("playhead")]) {
      element.style.setProperty("--at", at);
    }
    Object.assign($("ruler"), {ariaValueMax: data.duration.toFixed(1),
      ariaValueNow: player.time.toFixed(1),
      ariaValueText: clockText(player.time)});
    if (player.playing) this.reveal(player.time);
  },

  // Scrolls where the time is out of view.
  reveal(seconds) {
    const x = seconds / data.duration * this.lanesWidth;
    const left = $("scroller").scrollLeft;
    if (x < left || x > left + this.fitWidth) {
      $("scroller").scrollLeft = x - this.fitWidth * 0.1;
    }
  },
};

// Lanes without overlaps, the best scores in the first; all else in the last.
function packed(items) {
  const lanes = [[]];
  for (const item of [...items].sort((a, b) =>
    (b.score ?? 1) - (a.score ?? 1))) {
    let lane = lanes.find((one) => one.every((other) =>
      item.end <= other.start || item.start >= other.end));
    if (!lane && lanes.length < MAX_LANES) lanes.push(lane = []);
    (lane ?? lanes.at(-1)).push(item);
  }
  // By time; of equal starts the longest lies below the others.
  return lanes.map((lane) => lane.sort((a, b) => a.start - b.start ||
    b.end - a.end));
}

function scoreText(score) {
  if (score >= 0.995 && score <= 1) return "1.0";
  return score < 1 ? score.toFixed(2).replace(/^0/, "") : score.toFixed(1);
}

function verdict(item) {
  if (item.isAction) return item.missed ? "annotated, missed" : "annotated";
  const score = item.score === undefined ? "added by a person"
    : `score ${item.score.toFixed(2)}`;
  if (item.verdict) {
    return `${score}, ${item.verdict === "open" ? "to check" : item.verdict}`;
  }
  return score + (item.hit === undefined ? ""
    : item.hit ? ", right" : ", false");
}

function describe(item) {
  return `${data.labels[item.label]}, ${clockText(item.start)} to ` +
    `${clockText(item.end)}, ${verdict(item)}`;
}

// --- Pointers, wheel and zoom ---------------------------------------------

const secondsIn = (element, event) => {
  const box = element.getBoundingClientRect();
  return (event.clientX - box.left) / box.width * data.duration;
};

function seekOnDrag(element, seek) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    seek(secondsIn(element, event));
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) {
      seek(secondsIn(element, event));
    }
  });
}

seekOnDrag($("ruler"), (seconds) => player.seek(seconds));
seekOnDrag($("overview"), (seconds) => {
  $("scroller").scrollLeft = seconds / data.duration * timeline.lanesWidth -
    timeline.fitWidth / 2;
  player.seek(seconds);
});
$("rows").addEventListener("click", (event) => {
  if (event.target.closest(".lanes") && !timeline.itemAt(event)) {
    player.seek(secondsIn($("ruler"), event));
  }
});

const zoomBy = (factor) => timeline.setZoom(timeline.zoom * factor);
for (const [id, zoom] of [["zoom-in", () => zoomBy(1.5)],
  ["zoom-out", () => zoomBy(1 / 1.5)], ["zoom-fit", () => zoomBy(0)]]) {
  $(id).addEventListener("click", zoom);
}
$("scroller").addEventListener("scroll", () => {
  timeline.drawTicks();
  timeline.drawScrolled();
});
$("scroller").addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  timeline.setZoom(timeline.zoom * Math.exp(-event.deltaY / 300),
    secondsIn($("ruler"), event), event.clientX -
    $("scroller").getBoundingClientRect().left);
}, {passive: false});

function arrange() {
  timeline.layout();
  timeline.drawTicks();
}
// Only the width counts: the height changes with every refresh.
let lastWidth = $("scroller").clientWidth;
new ResizeObserver(() => {
  const width = $("scroller").clientWidth;
  if (width !== lastWidth) {
    lastWidth = width;
    requestAnimationFrame(arrange);
  }
}).observe($("scroller"));
