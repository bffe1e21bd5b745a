// Everything by keyboard: go somewhere, walk through rows, choose them, open them.

import { openPalette } from "./palette.js";
import { switchTheme } from "./theme.js";

const PLACES = { d: "/", r: "/runs", f: "/flows", e: "/deployments", w: "/work-pools", l: "/limits", s: "/settings" };
const PATIENCE_MS = 1200;
const FIELDS = "input:not([type=checkbox]), textarea, select, [contenteditable]";

let going = -Infinity;

export function keys() {
  document.addEventListener("keydown", hear);
  const early = window.earlyKeys;
  document.removeEventListener("keydown", early.keep);
  for (const event of early.pressed.splice(0)) {
    const field = document.activeElement;
    if (field.matches(FIELDS) && field !== event.target) type(event, field);
    else hear(event);
  }
}

function hear(event) {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
    return;
  }
  if (event.metaKey || event.ctrlKey || event.altKey) return;
  const target = event.target;
  if (target.closest("dialog[open]")) return;
  if (target.matches(FIELDS)) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (event.timeStamp - going < PATIENCE_MS && PLACES[event.key]) {
    location.assign(PLACES[event.key]);
    return;
  }
  if (pressed(event)) event.preventDefault();
}

// What was typed after a key that opens a field, when there was nobody yet to open it.
function type({ key, ctrlKey, metaKey, altKey }, field) {
  if (key.length !== 1 || ctrlKey || metaKey || altKey) return;
  field.setRangeText(key, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

function pressed(event) {
  const at = document.querySelector("[data-rows] [data-chosen]");
  switch (event.key) {
    case "/": openPalette(); return true;
    case "?": document.querySelector("[data-keys]")?.showModal(); return true;
    case "g": going = event.timeStamp; return true;
    case "t": switchTheme(); return true;
    case "j": case "k": step(at, event.key === "j" ? 1 : -1); return true;
    case "Enter":
      if (!at || event.target.matches("a, button, summary")) return false;
      location.assign(at.dataset.href);
      return true;
    case "x": {
      const box = at?.querySelector("[data-choose]");
      if (box) box.click();
      return Boolean(box);
    }
    case "f": {
      const filter = document.querySelector("[data-filter] input[type=search]");
      filter?.focus();
      return Boolean(filter);
    }
    default: {
      const tab = /^[1-9]$/.test(event.key) && document.querySelectorAll(".tabs a")[Number(event.key) - 1];
      if (tab) tab.click();
      return Boolean(tab);
    }
  }
}

function step(at, by) {
  const rows = [...document.querySelectorAll("[data-rows] [data-href]")];
  if (!rows.length) return;
  const place = at ? rows.indexOf(at) + by : by > 0 ? 0 : rows.length - 1;
  const next = rows[Math.min(Math.max(place, 0), rows.length - 1)];
  at?.removeAttribute("data-chosen");
  next.setAttribute("data-chosen", "");
  next.scrollIntoView({ block: "nearest" });
}
