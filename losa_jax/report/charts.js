// The values below the pointer, in the chart's own legend.
const data = JSON.parse(document.getElementById("data").textContent);

for (const chart of document.querySelectorAll("[data-chart]")) {
  const series = data.charts[Number(chart.dataset.chart)];
  const svg = chart.querySelector("svg");
  const cursor = chart.querySelector(".cursor");
  const texts = [...chart.querySelectorAll(".keys b")];
  const last = texts.map((text) => text.textContent);
  const summary = chart.querySelector(".summary");
  const sentence = summary.textContent;
  const [from, to] = [Number(chart.dataset.first),
    Number(chart.dataset.last)];
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * data.width;
    const inner = data.width - data.left - data.right;
    const step = from + (x - data.left) / inner * (to - from);
    let at = step;
    series.forEach((points, index) => {
      const near = points.reduce((best, one) => Math.abs(one[0] - step) <
        Math.abs(best[0] - step) ? one : best);
      texts[index].textContent = Number(near[1].toPrecision(4));
      if (index === 0) at = near[0];
    });
    const share = to > from ? (at - from) / (to - from) : 0.5;
    for (const name of ["x1", "x2"]) {
      cursor.setAttribute(name, data.left + share * inner);
    }
    summary.textContent = `step ${at.toLocaleString("en")}`;
  });
  svg.addEventListener("pointerleave", () => {
    texts.forEach((text, index) => {
      text.textContent = last[index];
    });
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, -9);
    summary.textContent = sentence;
  });
}
