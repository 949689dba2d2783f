const find = document.getElementById("find");
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  let count = 0;
  for (const card of document.getElementById("videos").children) {
    card.hidden = !card.dataset.name.includes(wanted);
    count += !card.hidden;
  }
  document.getElementById("said").textContent = `${count} videos`;
});
