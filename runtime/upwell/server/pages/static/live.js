// Keeps a page true: when the server says that something has changed, the parts that are marked `data-live` are
// fetched again and put in place of those shown, if they differ. One connection a page, resumed where it broke off.
// What the server cannot hear of, such as signs of life, is looked at now and then: `data-every` says after how many
// seconds.

import { localTimes } from "./times.js";
import { linesWereLost, logLines, missedLines } from "./logs.js";

const LEAST_MS = 250;
const SLEEP_MS = 20000;
const COSTS = 6; // a page that takes 100 ms to be made is made again after 600 ms at the earliest

let wanted = false;
let busy = false;
let last = 0;
let took = 0;
let left = false; // a part that was in use, and has still to be put in
let pressed = false; // what is pressed stays in its place until it is let go, or there would be no click

let source = null;
let sleeping = 0;

const shown = new WeakMap(); // each part as the server made it: times and choices are put into it here

export function live() {
  if (!document.querySelector("[data-live], [data-logs]")) return;
  const address = document.body.dataset.address; // of a form that was refused: it is found again elsewhere
  if (address) history.replaceState(null, "", address);
  open();
  const every = Number(document.querySelector("[data-every]")?.dataset.every);
  if (every) setInterval(() => { if (source) changed(); }, every * 1000);
  document.addEventListener("pointerdown", (event) => { pressed = event.button === 0; }, true);
  for (const end of ["pointerup", "pointercancel", "dragend"]) document.addEventListener(end, letGo, true);
  document.addEventListener("toggle", putTheRest, true);
  document.addEventListener("focusout", putTheRest);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(sleeping);
    if (document.hidden) sleeping = setTimeout(close, SLEEP_MS);
    else if (source) soon();
    else {
      open();
      changed();
    }
  });
}

function open() {
  const root = document.documentElement;
  source = new EventSource(streamAddress());
  source.addEventListener("open", () => {
    changed(); // what has happened since the page was made
    root.dataset.live = "on";
  });
  source.addEventListener("error", () => {
    root.dataset.live = "off";
    if (source?.readyState === EventSource.CLOSED) changed(); // refused: the page says why
  });
  source.addEventListener("reset", linesWereLost);
  for (const name of ["flow-run", "task-runs", "reset"]) source.addEventListener(name, changed);
  source.addEventListener("log", (event) => logLines(JSON.parse(event.data)));
}

// Whoever is sent to the login page has no session any more: what stands here stays as it was.
function sessionHasEnded() {
  document.documentElement.dataset.live = "out";
  const link = document.querySelector(".live .when-out");
  if (link) link.href = `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
  close();
}

// A browser has few connections to one server: a page that nobody sees gives its own back.
function close() {
  source?.close();
  source = null;
}

function streamAddress() {
  const about = document.querySelector("[data-stream-run]");
  const query = new URLSearchParams();
  if (about) query.set("flow_run_id", about.dataset.streamRun);
  if (document.querySelector("[data-logs]")) query.set("logs", "true");
  const text = query.toString();
  return "/api/stream" + (text ? `?${text}` : "");
}

function letGo() {
  pressed = false;
  soon();
}

function putTheRest() {
  if (left) changed();
  left = false;
}

function changed() {
  if (wanted) return;
  wanted = true;
  soon();
}

function soon() {
  if (busy || pressed || !wanted || document.hidden) return;
  const wait = Math.max(LEAST_MS, COSTS * took) - (performance.now() - last);
  setTimeout(refresh, Math.max(wait, 30));
}

async function refresh() {
  if (busy || pressed || !wanted) return;
  busy = true;
  wanted = false;
  const began = performance.now();
  try {
    const address = location.href;
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "manual" });
    const text = answer.ok ? await answer.text() : "";
    if (answer.type === "opaqueredirect") sessionHasEnded();
    if (pressed || location.href !== address) wanted = true; // a filter may have been applied meanwhile
    else if (text) put(new DOMParser().parseFromString(text, "text/html"));
  } catch {
    // the server is away: the stream says so, and its return brings us here again
  }
  took = performance.now() - began;
  last = performance.now();
  busy = false;
  if (wanted) soon();
}

function put(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    const made = next?.innerHTML;
    if (made === undefined || shown.get(part) === made) continue;
    if (isInUse(part)) {
      left = true;
      continue;
    }
    const kept = remembered(part);
    shown.set(part, made);
    part.replaceChildren(...next.childNodes);
    kept();
    localTimes(part);
    part.dispatchEvent(new CustomEvent("upwell:refreshed", { bubbles: true }));
  }
  missedLines(fresh);
  const title = fresh.querySelector("title");
  if (title && title.textContent !== document.title) document.title = title.textContent;
}

// Somebody types in it, or has opened something in it.
function isInUse(part) {
  const at = document.activeElement;
  const types = part.contains(at) && at.matches("input:not([type=checkbox]), textarea, select");
  return types || part.querySelector("details[open]") !== null;
}

// What finds an element again among those that have come in its place.
function selectorOf(element) {
  const name = ["href", "value"].find((known) => element.hasAttribute(known));
  if (name) return `${element.localName}[${name}="${CSS.escape(element.getAttribute(name))}"]`;
  const action = element.closest("form")?.getAttribute("action");
  return action ? `form[action="${CSS.escape(action)}"] ${element.localName}` : element.localName;
}

// What the reader has chosen, focused and scrolled to stays.
function remembered(part) {
  const chosen = new Set([...part.querySelectorAll("[data-choose]:checked")].map((box) => box.value));
  const at = part.querySelector("tr[data-chosen], li[data-chosen]")?.dataset.href;
  const focused = part.contains(document.activeElement) ? selectorOf(document.activeElement) : null;
  const alike = focused ? [...part.querySelectorAll(focused)].indexOf(document.activeElement) : 0;
  const scrolls = [...part.querySelectorAll("[data-scrolls]")].map((box) => [box.scrollLeft, box.scrollTop]);
  return () => {
    for (const box of part.querySelectorAll("[data-choose]")) box.checked = chosen.has(box.value);
    if (at) part.querySelector(`[data-href="${CSS.escape(at)}"]`)?.setAttribute("data-chosen", "");
    if (focused) part.querySelectorAll(focused)[alike]?.focus({ preventScroll: true });
    part.querySelectorAll("[data-scrolls]").forEach((box, place) => {
      if (scrolls[place]) [box.scrollLeft, box.scrollTop] = scrolls[place];
    });
  };
}
