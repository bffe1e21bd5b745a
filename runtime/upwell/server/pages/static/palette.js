// Search: on `/` and cmd-k. The server finds and says what is found; here one is chosen.

const WAIT_MS = 90;

let timer = 0;
let asked = 0;

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
    choose(0);
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
    link.classList.toggle("at", index === place);
    link.setAttribute("aria-selected", index === place ? "true" : "false");
  });
  all[place]?.scrollIntoView({ block: "nearest" });
}

export function palette() {
  const palette = dialog();
  if (!palette) return; // the login page has none
  for (const button of document.querySelectorAll("[data-search]")) button.addEventListener("click", openPalette);
  const input = palette.querySelector("input");
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => find(input.value), WAIT_MS);
  });
  palette.addEventListener("keydown", (event) => {
    const all = links();
    const place = all.findIndex((link) => link.classList.contains("at"));
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (all.length) choose((place + (event.key === "ArrowDown" ? 1 : -1) + all.length) % all.length);
    } else if (event.key === "Enter" && all[place]) {
      event.preventDefault();
      location.assign(all[place].href);
    }
  });
  for (const each of document.querySelectorAll("dialog")) {
    each.addEventListener("click", (event) => { if (event.target === each) each.close(); });
  }
}
