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

let asked = 0;
async function acceptMany(onlyCounts) {
  const ask = asked += 1;
  const response = await fetch("accept", {method: "POST",
    headers: {"Content-Type": "application/json"}, body: JSON.stringify({
      label: $("many-class").value || null,
      score: Number($("many-score").value), only_counts: onlyCounts})});
  const answer = await response.json();
  if (ask !== asked) return;
  if (!response.ok) {
    $("many-count").textContent = answer.error;
  } else if (onlyCounts) {
    $("many-count").textContent = `${answer.count} detections in ` +
      `${answer.videos} videos`;
  } else {
    location.reload();
  }
}
const showCount = () => acceptMany(true).catch((error) => {
  $("many-count").textContent = `no answer (${error.message})`;
});
$("many-class").addEventListener("change", showCount);
$("many-score").addEventListener("input", showCount);
$("many-form").addEventListener("submit", (event) => {
  event.preventDefault();
  acceptMany(false).catch(showCount);
});
showCount();
// A page that the browser kept shows old numbers.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
