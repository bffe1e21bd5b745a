// Filters: applied as one types or chooses. What is typed changes the page in its place: no key is lost on the way to
// another page, and the way back leads to where one was before.

import { graph } from "./graph.js";
import { logs } from "./logs.js";
import { localTimes } from "./times.js";

const WAIT_MS = 350;

let timer = 0;
let asked = 0;

export function filters() {
  document.addEventListener("formdata", ({ target, formData }) => {
    if (target.method === "get") for (const [name, value] of [...formData]) if (!value) formData.delete(name);
  });
  document.addEventListener("change", ({ target }) => {
    if (target.matches("form[data-filter] select")) target.form.requestSubmit();
  });
  document.addEventListener("input", ({ target }) => {
    if (!target.matches("form[data-filter] input[type=search]")) return;
    clearTimeout(timer);
    timer = setTimeout(apply, WAIT_MS, target);
  });
}

async function apply(field) {
  const turn = ++asked;
  const address = new URL(field.form.action);
  address.search = new URLSearchParams(new FormData(field.form));
  let text = "";
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "manual" });
    if (answer.ok) text = await answer.text();
  } catch {
    // the server is away: the browser says so
  }
  if (turn !== asked) return;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const main = fresh.querySelector("main");
  const twin = main?.querySelector(`form[data-filter] input[name="${CSS.escape(field.name)}"]`);
  if (twin) put(field, twin, main, address);
  else field.form.requestSubmit();
}

// The field stays the one in which somebody types: it takes the place of its twin.
function put(field, twin, main, address) {
  history.replaceState(null, "", address);
  const focused = document.activeElement === field;
  const chosen = [field.selectionStart, field.selectionEnd];
  twin.replaceWith(field);
  document.querySelector("main").replaceChildren(...main.childNodes);
  if (focused) field.focus({ preventScroll: true });
  field.setSelectionRange(...chosen);
  localTimes(document.querySelector("main"));
  graph();
  logs();
  document.dispatchEvent(new CustomEvent("upwell:refreshed"));
}
