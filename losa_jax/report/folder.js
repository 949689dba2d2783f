const find = document.getElementById("find");
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  const entries = [...document.querySelectorAll("#videos [data-name]")];
  for (const entry of entries) {
    entry.hidden = !entry.dataset.name.includes(wanted);
  }
  const count = entries.filter((entry) => !entry.hidden).length;
  document.getElementById("announcer").textContent = `${count} videos`;
});
