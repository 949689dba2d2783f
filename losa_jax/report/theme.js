"use strict";
// Light, dark, or as the system; a page from disk may not be able to keep it.
const themes = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

function showTheme(name) {
  document.documentElement.dataset.theme = name;
  themeButton.textContent = `Theme: ${name}`;
}

let theme = themes[0];
try {
  const stored = localStorage.getItem("theme");
  if (themes.includes(stored)) theme = stored;
} catch { /* no storage */ }
showTheme(theme);
themeButton.addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  showTheme(theme);
  try {
    localStorage.setItem("theme", theme);
  } catch { /* no storage */ }
});
