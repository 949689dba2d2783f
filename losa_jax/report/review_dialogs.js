// Dialogs: the class of an action, and accepting many detections.
function openClasses() {
  $("class-name").value = "";
  listClasses();
  $("choose-class").showModal();
}

function listClasses() {
  const wanted = $("class-name").value.trim();
  const names = data.labels.filter((name) =>
    name.toLowerCase().includes(wanted.toLowerCase()));
  if (wanted && !data.labels.includes(wanted)) names.push(wanted);
  $("class-list").replaceChildren(...names.map((name) => make("li", {},
    make("button", {value: name}, data.labels.includes(name) ? name
      : `new class: ${name}`))));
}
$("class-name").addEventListener("input", listClasses);
$("class-form").addEventListener("submit", (event) => {
  // Enter takes the first one, without a button of its own.
  const name = event.submitter?.value;
  if (name) {
    useClass(labelIndex(name));
    fillClasses();
    refresh();
    showClasses();
  }
});

const bulkItems = () => [...items.values()].filter((item) =>
  item.verdict === "open" && item.score >= Number($("bulk-score").value) &&
  (!$("bulk-class").value ||
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
