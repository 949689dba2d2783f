const find = document.getElementById("find");
const entries = [...document.querySelectorAll("#videos [data-name]")];
find.parentElement.hidden = !entries.length;
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  const shown = entries.filter((one) => one.dataset.name.includes(wanted));
  for (const entry of entries) entry.hidden = !shown.includes(entry);
  document.getElementById("announcer").textContent =
    `${shown.length} videos`;
});
