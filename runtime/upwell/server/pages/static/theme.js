// Light, dark, or as the system has it. A cookie tells the server, so that no page flashes in the other one first.

const NAMES = { "": "System", light: "Light", dark: "Dark" };
const NEXT = { "": "dark", dark: "light", light: "" };

export function switchTheme() {
  const root = document.documentElement;
  const chosen = NEXT[root.dataset.theme ?? ""];
  if (chosen) root.dataset.theme = chosen;
  else delete root.dataset.theme;
  document.cookie = `upwell_theme=${chosen}; path=/; max-age=${chosen ? 31536000 : 0}; samesite=strict`;
  say();
}

function say() {
  for (const name of document.querySelectorAll("[data-theme-name]")) {
    name.textContent = `Theme: ${NAMES[document.documentElement.dataset.theme ?? ""].toLowerCase()}`;
  }
}

export function theme() {
  say();
  for (const button of document.querySelectorAll("[data-theme-switch]")) button.addEventListener("click", switchTheme);
}
