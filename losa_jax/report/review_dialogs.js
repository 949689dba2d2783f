// Dialogs: the class of an action, and accepting many detections.
// What comes after a class is chosen.
let afterClass = null;

function openClasses(then = null) {
  afterClass = then;
  $("class-name").value = "";
  listClasses();
  $("choose-class").showModal();
}

function listClasses() {
  const wanted = $("class-name").value.trim().normalize("NFC");
  const isWanted = (name) => name.toLowerCase() === wanted.toLowerCase();
  const names = data.labels.filter((name) =>
    name.toLowerCase().includes(wanted.toLowerCase()))
    .sort((a, b) => (b === wanted) - (a === wanted) ||
      isWanted(b) - isWanted(a));
  if (wanted && !data.labels.includes(wanted)) names.push(wanted);
  $("class-list").replaceChildren(...names.map((name) => make("li", {},
    make("button", {value: name}, data.labels.includes(name) ? name
      : `new class: ${name}`))));
}
$("class-name").addEventListener("input", listClasses);
$("class-form").addEventListener("submit", (event) => {
  // Enter takes the first one that matches, without a button of its own.
  const name = document.activeElement === $("class-name") &&
    !$("class-name").value.trim() ? "" : event.submitter?.value;
  if (name) {
    useClass(labelIndex(name));
    afterClass?.();
    fillClasses();
    refresh();
    showClasses();
  }
});
$("class-form").addEventListener("keydown", (event) => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!step) return;
  event.preventDefault();
  const stops = [...$("class-form").querySelectorAll("input, button")];
  stops[clamp(stops.indexOf(document.activeElement) + step, 0,
    stops.length - 1)].focus();
});

// None that the page does not show to check.
const bulkItems = () => [...items.values()].filter((item) =>
  item.verdict === "open" && reaches(item) &&
  item.score >= Number($("bulk-score").value) && (!$("bulk-class").value ||
    $("bulk-class").value === data.labels[item.label]));
function showBulk() {
  const count = bulkItems().length;
  $("bulk-count").textContent =
    `${count} ${count === 1 ? "detection" : "detections"} of this video`;
  $("bulk-accept").disabled = !count;
}
$("bulk-open").addEventListener("click", () => {
  showBulk();
  $("bulk").showModal();
});
$("bulk-class").addEventListener("change", showBulk);
$("bulk-score").addEventListener("input", showBulk);
$("bulk-form").addEventListener("submit", (event) => {
  if (event.submitter?.value !== "accept") return;
  review.change(Object.fromEntries(bulkItems().map((item) =>
    [item.id, accepted(item)])));
  showChosen();
});

function fillClasses() {
  for (const id of ["only", "bulk-class"]) {
    const known = [...$(id).options].map((one) => one.value);
    $(id).append(...data.labels.filter((name) => !known.includes(name))
      .map((name) => make("option", {value: name}, name)));
  }
}
