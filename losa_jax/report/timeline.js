// Rows of segments under one ruler, with zoom.
const LANES = 5;
// Of more classes only those with something to show have a row.
const MANY_ROWS = 12;
const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800,
  3600, 7200];
const TICK_PIXELS = 78;
// How far one may zoom in; a short video this much in any case.
const PIXELS_PER_SECOND = 160;
const LEAST_ZOOM = 8;
const hueOf = (label) => `hue${label % 12}`;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const timeline = {
  zoom: 1,
  chosen: null,
  elements: new Map(),
  lanesWidth: 1,

  get mostZoom() {
    const fit = this.fitWidth || 800;
    return Math.max(LEAST_ZOOM, data.duration * PIXELS_PER_SECOND / fit);
  },

  // Draws the rows of what is shown now.
  draw(predictions, actions) {
    const focus = document.activeElement?.dataset?.id;
    this.elements.clear();
    this.items = [];
    const rows = [];
    let empty = 0;
    data.labels.forEach((name, label) => {
      const own = predictions.filter((item) => item.label === label);
      const truth = actions.filter((item) => item.label === label);
      if (data.labels.length > MANY_ROWS && !own.length && !truth.length) {
        empty += 1;
      } else {
        rows.push(this.row(name, label, own, truth));
      }
    });
    if (empty) {
      const line = make("div", "row rest");
      line.setAttribute("role", "listitem");
      line.append(make("span", "", `${empty} more ` +
        `${empty === 1 ? "class" : "classes"} below this score`));
      rows.push(line);
    }
    $("rows").replaceChildren(...rows);
    if (focus) this.elements.get(focus)?.focus({preventScroll: true});
    this.rove();
    this.drawOverview(predictions, actions);
  },

  row(name, label, own, truth) {
    const row = make("div", `row ${hueOf(label)}`);
    row.setAttribute("role", "listitem");
    const title = make("div", "name");
    title.append(make("span", "dot"), make("span", "text", name));
    title.title = name;
    row.append(title);
    const lanes = make("div", "lanes");
    lanes.setAttribute("role", "group");
    lanes.setAttribute("aria-label", `${name}: ${own.length} detections` +
      (data.truth ? `, ${truth.length} annotated` : ""));
    if (data.truth) {
      const strip = make("div", "lane truth");
      for (const item of truth) strip.append(this.segment(item));
      lanes.append(strip);
    }
    for (const lane of packed(own)) {
      const strip = make("div", "lane");
      for (const item of lane) strip.append(this.segment(item));
      lanes.append(strip);
    }
    row.append(lanes);
    return row;
  },

  segment(item) {
    const button = make("button", item.isAction ? "segment action"
      : "segment");
    button.type = "button";
    button.tabIndex = -1;
    button.dataset.id = item.id;
    button.setAttribute("aria-label", describe(item));
    const start = Math.min(Math.max(item.start, 0), data.duration);
    const end = Math.min(Math.max(item.end, start), data.duration);
    const share = (end - start) / data.duration;
    button.style.left = `${100 * start / data.duration}%`;
    button.style.width = `${100 * share}%`;
    if (item.isAction) {
      button.classList.toggle("missed", item.missed === true);
    } else {
      button.style.setProperty("--score", item.strength.toFixed(3));
      button.classList.toggle("false", item.hit === false);
      if (share * this.lanesWidth > 34) {
        button.textContent = scoreText(item.score);
      }
    }
    if (item === this.chosen) button.classList.add("chosen");
    this.elements.set(item.id, button);
    this.items.push(item);
    return button;
  },

  // One segment takes part in the order of Tab; arrows do the rest.
  rove() {
    const id = document.activeElement?.dataset?.id ?? this.chosen?.id;
    const first = this.items[0]?.id;
    const main = this.elements.has(id) ? id : first;
    for (const [key, button] of this.elements) {
      button.tabIndex = key === main ? 0 : -1;
    }
  },

  move(button, key) {
    const lists = [...$("rows").querySelectorAll(".lane")]
      .map((lane) => [...lane.children].sort((a, b) =>
        parseFloat(a.style.left) - parseFloat(b.style.left)))
      .filter((lane) => lane.length);
    const at = lists.findIndex((lane) => lane.includes(button));
    const place = lists[at].indexOf(button);
    let next = null;
    if (key === "ArrowLeft") next = lists[at][place - 1];
    if (key === "ArrowRight") next = lists[at][place + 1];
    if (key === "ArrowUp" || key === "ArrowDown") {
      const lane = lists[at + (key === "ArrowUp" ? -1 : 1)];
      const left = parseFloat(button.style.left);
      next = lane?.reduce((best, one) =>
        Math.abs(parseFloat(one.style.left) - left) <
        Math.abs(parseFloat(best.style.left) - left) ? one : best);
    }
    if (next) {
      next.focus();
      this.rove();
    }
  },

  choose(item) {
    if (this.chosen) {
      this.elements.get(this.chosen.id)?.classList.remove("chosen");
    }
    this.chosen = item;
    this.elements.get(item.id)?.classList.add("chosen");
    this.rove();
  },

  setZoom(zoom, anchorSeconds, anchorPixels) {
    const scroller = $("scroller");
    const next = Math.min(Math.max(zoom, 1), this.mostZoom);
    const at = anchorSeconds ?? player.time;
    const names = this.namesWidth;
    const pixels = anchorPixels ?? (scroller.clientWidth + names) / 2;
    this.zoom = next;
    this.layout();
    refresh();
    scroller.scrollLeft = at / data.duration * this.lanesWidth + names -
      pixels;
    this.drawTicks();
  },

  layout() {
    const scroller = $("scroller");
    this.namesWidth = parseFloat(getComputedStyle(scroller)
      .getPropertyValue("--names")) || 0;
    this.fitWidth = Math.max(scroller.clientWidth - this.namesWidth, 50);
    this.zoom = Math.min(this.zoom, this.mostZoom);
    this.lanesWidth = this.fitWidth * this.zoom;
    $("track").style.width = `${this.lanesWidth + this.namesWidth}px`;
    $("zoom-value").textContent = this.zoom < 10
      ? `${Number(this.zoom.toFixed(1))}×` : `${Math.round(this.zoom)}×`;
  },

  drawTicks() {
    const ruler = $("ruler");
    const scroller = $("scroller");
    const perSecond = this.lanesWidth / data.duration;
    const step = TICKS.find((one) => one * perSecond >= TICK_PIXELS) ??
      TICKS.at(-1);
    const first = Math.floor(scroller.scrollLeft / perSecond / step);
    const last = Math.ceil((scroller.scrollLeft + scroller.clientWidth) /
      perSecond / step);
    const ticks = [];
    for (let i = Math.max(first, 0); i <= last; i += 1) {
      if (i * step > data.duration) break;
      const room = (data.duration - i * step) * perSecond;
      const tick = make("span", "tick", room < 44 ? ""
        : clockText(i * step, step < 1 ? 1 : 0));
      tick.style.left = `${i * step * perSecond}px`;
      ticks.push(tick);
    }
    ruler.replaceChildren(...ticks);
    $("track").style.setProperty("--grid", `${step * perSecond}px`);
    this.drawFrame();
  },

  // The part of the video that the scroller shows.
  drawFrame() {
    const scroller = $("scroller");
    const frame = $("overview").querySelector(".frame");
    frame.hidden = this.zoom <= 1.001;
    frame.style.left = `${100 * scroller.scrollLeft / this.lanesWidth}%`;
    frame.style.width = `${100 * this.fitWidth / this.lanesWidth}%`;
  },

  drawOverview(predictions, actions) {
    const canvas = $("overview").querySelector("canvas");
    const ratio = devicePixelRatio || 1;
    const {width, height} = canvas.getBoundingClientRect();
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const scale = width / data.duration;
    const colors = data.labels.map((_, label) => {
      const probe = make("i", hueOf(label));
      $("overview").append(probe);
      const color = getComputedStyle(probe).color;
      probe.remove();
      return color;
    });
    const lane = (height - 6) / data.labels.length;
    const bar = (item, top, size, strength) => {
      context.globalAlpha = strength;
      context.fillStyle = colors[item.label];
      context.fillRect(item.start * scale, 3 + (item.label + top) * lane,
        Math.max((item.end - item.start) * scale, 2),
        Math.max(size * lane, 1));
    };
    for (const item of predictions) {
      bar(item, 0.1, 0.8, 0.25 + 0.6 * item.strength);
    }
    for (const item of actions) bar(item, 0.1, 0.3, 1);
  },

  showTime() {
    const share = Math.min(player.time / data.duration, 1);
    for (const id of ["track", "overview"]) {
      $(id).style.setProperty("--at", `${100 * share}%`);
    }
    const ruler = $("ruler");
    ruler.setAttribute("aria-valuemax", data.duration.toFixed(1));
    ruler.setAttribute("aria-valuenow", player.time.toFixed(1));
    ruler.setAttribute("aria-valuetext", clockText(player.time));
    if (player.playing) this.reveal(player.time);
  },

  // Scrolls on when the playing moment leaves what is shown.
  reveal(seconds) {
    const scroller = $("scroller");
    const x = seconds / data.duration * this.lanesWidth;
    const left = scroller.scrollLeft;
    if (x < left || x > left + this.fitWidth) {
      scroller.scrollLeft = x - this.fitWidth * 0.1;
    }
  },
};

// Lanes without overlaps, the best scores in the first.
function packed(items) {
  const lanes = [];
  for (const item of [...items].sort((a, b) => b.score - a.score)) {
    let lane = lanes.find((one) => one.every((other) =>
      item.end <= other.start || item.start >= other.end));
    if (!lane && lanes.length < LANES) lanes.push(lane = []);
    (lane ?? lanes.at(-1)).push(item);
  }
  if (!lanes.length) lanes.push([]);
  // Read from left to right; the longest below, so that none is hidden.
  return lanes.map((lane) => lane.sort((a, b) => a.start - b.start ||
    b.end - a.end));
}

function scoreText(score) {
  if (score >= 0.995 && score <= 1) return "1.0";
  return score < 1 ? score.toFixed(2).replace(/^0/, "") : score.toFixed(1);
}

function describe(item) {
  const name = data.labels[item.label];
  const times = `${clockText(item.start)} to ${clockText(item.end)}`;
  if (item.isAction) {
    return `annotated: ${name}, ${times}` + (item.missed ? ", missed" : "");
  }
  const verdict = item.hit === undefined ? ""
    : item.hit ? ", right" : ", false";
  return `${name}, ${times}, score ${item.score.toFixed(2)}${verdict}`;
}
