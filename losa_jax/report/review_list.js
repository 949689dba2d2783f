// The list of videos: search, filter, and accepting many detections.
const $ = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll("#videos [data-name]")];
for (const bar of document.querySelectorAll("[data-share]")) {
  bar.style.width = `${bar.dataset.share}%`;
}

function filter() {
  const wanted = $("find").value.trim().toLowerCase();
  const complete = $("which").value;
  let count = 0;
  for (const card of cards) {
    card.hidden = !card.dataset.name.includes(wanted) ||
      (complete !== "" && card.dataset.complete !== complete);
    count += !card.hidden;
  }
  $("announcer").textContent = `${count} videos`;
}
$("find").addEventListener("input", filter);
$("which").addEventListener("change", filter);

// No frame of a video that has vanished, or that nothing can decode.
document.addEventListener("error", ({target}) => {
  if (!target.matches("img")) return;
  const blank = document.createElement("span");
  blank.className = "blank";
  target.replaceWith(blank);
}, true);

// --- Accepting many ---------------------------------------------------------

let asked = 0;
// Sends a request about all videos; says what it changed on the new page.
async function send(name, body = {}, done = "") {
  const ask = asked += 1;
  let text;
  try {
    const response = await fetch(name, {method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(body)});
    const answer = await response.json();
    text = response.ok ? `${answer.count} detections in ${answer.videos} ` +
      `videos${done}` : answer.error;
    if (done && response.ok) {
      history.replaceState(text, "");
      location.reload();
    }
  } catch (error) {
    text = `no answer (${error.message}): is losa_jax.review still running?`;
  }
  if (ask === asked) $("many-count").textContent = text;
}
const accept = (onlyCounts, done) => send("accept", {
  label: $("many-class").value || null, score: Number($("many-score").value),
  only_counts: onlyCounts}, done);
const showCount = () => {
  if ($("many-score").checkValidity()) accept(true);
  else $("many-count").textContent = "give a score from 0 to 1";
};
const retrace = {undo: () => send("undo", {}, " are to check again"),
  redo: () => send("redo", {}, " accepted again")};
$("many-class").addEventListener("change", showCount);
$("many-score").addEventListener("input", showCount);
$("many-form").addEventListener("submit", (event) => {
  event.preventDefault();
  accept(false, " accepted");
});
for (const [name, act] of Object.entries(retrace)) {
  $(name).addEventListener("click", act);
}
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const name = key === "y" || (key === "z" && event.shiftKey) ? "redo"
    : key === "z" ? "undo" : "";
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !name ||
      event.repeat || event.target.matches("input")) return;
  event.preventDefault();
  if (!$(name).disabled) retrace[name]();
});
if (history.state) $("many-count").textContent = history.state;
else showCount();
history.replaceState(null, "");
// A page that the browser kept shows old numbers.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
