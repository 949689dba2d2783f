// Segments painted on a canvas, where elements would be too many to be quick,
// and the overview.
const MAX_CANVAS_PIXELS = 16000;
const MIN_SEGMENT_PIXELS = 3;
// A pointer this near to a painted segment is on it.
const NEAR_PIXELS = 2;

const colors = {
  byHue: new Map(),

  // The color of a class in the scheme of the page.
  of(item) {
    const hue = hueOf(item);
    if (!this.byHue.has(hue)) {
      const probe = make("span", {className: hue, hidden: true,
        style: "color: var(--tone)"});
      document.body.append(probe);
      this.byHue.set(hue, getComputedStyle(probe).color);
      probe.remove();
    }
    return this.byHue.get(hue);
  },

  // Paints again in another scheme.
  forget() {
    this.byHue.clear();
    refresh();
  },
};
new MutationObserver(() => colors.forget()).observe(document.documentElement,
  {attributeFilter: ["data-theme"]});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  colors.forget());

function sharpContext(canvas, width, height) {
  const scale = Math.min(devicePixelRatio, MAX_CANVAS_PIXELS / width);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
  const context = canvas.getContext("2d");
  context.scale(canvas.width / width, canvas.height / height);
  return context;
}

// Paints the segments of a lane from `from` to `to` seconds.
function paintLane(lane, list, from, to, height) {
  const width = (to - from) / data.duration * timeline.lanesWidth;
  const canvas = make("canvas", {className: "painted", style:
    `left: ${100 * from / data.duration}%; ` +
    `width: ${100 * (to - from) / data.duration}%`});
  lane.append(canvas);
  const context = sharpContext(canvas, width, height);
  const pixels = width / (to - from);
  context.lineWidth = 1;
  for (const item of list) {
    const x = (item.start - from) * pixels;
    const w = Math.max((item.end - item.start) * pixels, MIN_SEGMENT_PIXELS);
    context.fillStyle = context.strokeStyle = colors.of(item);
    const isOutline = item.verdict === "rejected" || item.missed;
    context.globalAlpha = isOutline ? 0.1
      : item.isAction || item.verdict === "accepted" ? 1
        : 0.15 + 0.7 * (item.strength ?? 1);
    context.fillRect(x, 1, w, height - 2);
    context.globalAlpha = isOutline ? 0.6 : 1;
    context.strokeRect(x + 0.5, 1.5, w - 1, height - 3);
  }
}

function paintOverview(list) {
  const canvas = $("bars");
  const {clientWidth: width, clientHeight: height} = canvas;
  if (!width) return;
  const context = sharpContext(canvas, width, height);
  const lane = (height - 6) / data.labels.length;
  for (const item of list) {
    const x = width * item.start / data.duration;
    context.fillStyle = colors.of(item);
    context.globalAlpha = item.isAction ? 1
      : 0.25 + 0.6 * (item.strength ?? 1);
    context.fillRect(x, 3 + (item.label + 0.1) * lane,
      Math.max(width * item.end / data.duration - x, MIN_SEGMENT_PIXELS),
      Math.max((item.isAction ? 0.3 : 0.8) * lane, 1));
  }
}
