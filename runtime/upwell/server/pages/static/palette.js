// Search: on `/` and cmd-k. The server finds and says what is found; here one is chosen.

const WAIT_MS = 90;

let timer = 0;
let asked = 0;
let shown = null; // the text whose hits are shown
let opens = false; // the first of them, as soon as they are there

const dialog = () => document.querySelector("[data-palette]");

export function openPalette() {
  const palette = dialog();
  if (!palette) return;
  if (!palette.open) palette.showModal();
  const input = palette.querySelector("input");
  input.select();
  find(input.value);
}

async function find(text) {
  const turn = ++asked;
  try {
    const answer = await fetch(`/search?part=found&q=${encodeURIComponent(text)}`);
    if (!answer.ok || turn !== asked) return;
    const found = dialog().querySelector(".found");
    found.replaceChildren(...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes);
    shown = text;
    choose(0);
    if (opens) openChosen();
  } catch {
    // the server is away
  }
}

function links() {
  return [...dialog().querySelectorAll(".found a")];
}

function choose(place) {
  const all = links();
  all.forEach((link, index) => {
    link.id = `found-${index}`;
    link.classList.toggle("at", index === place);
    link.setAttribute("aria-selected", index === place ? "true" : "false");
  });
  all[place]?.scrollIntoView({ block: "nearest" });
  const input = dialog().querySelector("input");
  if (all[place]) input.setAttribute("aria-activedescendant", all[place].id);
  else input.removeAttribute("aria-activedescendant");
}

function openChosen() {
  opens = false;
  const link = dialog().querySelector(".found a.at");
  if (link) location.assign(link.href);
}

export function palette() {
  const palette = dialog();
  if (!palette) return; // the login page has none
  for (const button of document.querySelectorAll("[data-search]")) button.addEventListener("click", openPalette);
  const input = palette.querySelector("input");
  input.addEventListener("input", () => {
    opens = false;
    clearTimeout(timer);
    timer = setTimeout(() => find(input.value), WAIT_MS);
  });
  palette.addEventListener("close", () => { opens = false; });
  palette.addEventListener("keydown", (event) => {
    const all = links();
    const place = all.findIndex((link) => link.classList.contains("at"));
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (all.length) choose((place + (event.key === "ArrowDown" ? 1 : -1) + all.length) % all.length);
    } else if (event.key === "Enter" && event.target === input) {
      event.preventDefault();
      clearTimeout(timer);
      opens = input.value !== shown;
      if (opens) find(input.value);
      else openChosen();
    }
  });
  for (const each of document.querySelectorAll("dialog")) {
    each.addEventListener("click", (event) => { if (event.target === each) each.close(); });
  }
}
