"use strict";
// Light, dark, or as the system says; kept where the browser lets us.
const themes = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

function showTheme(name) {
  document.documentElement.dataset.theme = name;
  themeButton.textContent = `Theme: ${name}`;
}

function storedTheme() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

showTheme(themes.includes(storedTheme()) ? storedTheme() : "auto");
themeButton.addEventListener("click", () => {
  const now = themes.indexOf(document.documentElement.dataset.theme);
  const next = themes[(now + 1) % themes.length];
  showTheme(next);
  try {
    localStorage.setItem("theme", next);
  } catch { /* a page from disk may not be allowed to keep anything */ }
  dispatchEvent(new Event("themechange"));
});
