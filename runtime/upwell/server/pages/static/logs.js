// The log of a run: lines come as they are written, if they pass the filter that the page was asked for.

import { localTimes } from "./times.js";

const MOST_LINES = 2000;
const NEAR_END_PX = 40;

const PAUSE_MS = 100; // between two times that lines are put in: a flood of them must leave room for the reader

const waiting = new Map(); // by their keys
const shown = new Set();
let last = 0;
let hasLost = false;

export function logs() {
  const box = document.querySelector("[data-logs]");
  if (!box) return;
  shown.clear();
  waiting.clear();
  if (box.dataset.following === "yes") box.scrollTop = box.scrollHeight;
  for (const line of box.querySelectorAll("li[data-key]")) shown.add(line.dataset.key);
  for (const text of box.querySelectorAll(".said")) mark(text, box.dataset.text);
}

// What was written between the making of the page and the beginning of its stream: in the page as it is now.
export function missedLines(fresh) {
  const box = document.querySelector("[data-logs]");
  const now = fresh.querySelector("[data-logs]");
  if (!box || !now) return;
  box.dataset.series = now.dataset.series;
  if (box.dataset.following !== "yes") return;
  const list = box.querySelector("ol");
  if (hasLost) { // the stream could not tell all of it: what is shown must have no gap
    hasLost = false;
    list.replaceChildren();
    shown.clear();
  }
  const missed = [...now.querySelectorAll("li")].filter((line) => !shown.has(line.dataset.key));
  if (!missed.length) return;
  const atEnd = isAtEnd(box);
  for (const line of missed) shown.add(line.dataset.key);
  list.append(...missed);
  inOrder(list);
  box.querySelector(".empty")?.remove();
  trim(list);
  localTimes(list);
  if (atEnd) box.scrollTop = box.scrollHeight;
}

// The stream says that more was missed than it tells again.
export function linesWereLost() {
  hasLost = true;
}

// Lines that the stream tells late belong before those that the page has brought along.
function inOrder(list) {
  list.append(...[...list.children].sort((one, other) => one.dataset.key - other.dataset.key));
}

function trim(list) {
  while (list.childElementCount > MOST_LINES) {
    shown.delete(list.firstElementChild.dataset.key);
    list.firstElementChild.remove();
  }
}

function isAtEnd(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
}

export function logLines(line) {
  const box = document.querySelector("[data-logs]");
  if (!box || box.dataset.following !== "yes") return;
  if (line.level < Number(box.dataset.level) || !line.message.toLowerCase().includes(box.dataset.text.toLowerCase())) return;
  if (box.dataset.taskRun && line.task_run_id !== box.dataset.taskRun) return;
  const key = String(line.key);
  if (waiting.has(key) || shown.has(key)) return;
  waiting.set(key, line);
  if (waiting.size > MOST_LINES) waiting.delete(waiting.keys().next().value);
  if (waiting.size === 1) setTimeout(() => requestAnimationFrame(() => put(box)), Math.max(0, last + PAUSE_MS - performance.now()));
}

function put(box) {
  const atEnd = isAtEnd(box);
  const fragment = document.createDocumentFragment();
  const series = JSON.parse(box.dataset.series || "[]").map(([base, task]) => [BigInt(`0x${base}`), task]);
  for (const [key, line] of waiting) {
    if (shown.has(key)) continue; // it was in the page that was fetched meanwhile
    shown.add(key);
    fragment.append(made(line, box, series));
  }
  waiting.clear();
  localTimes(fragment);
  const list = box.querySelector("ol");
  const before = list.lastElementChild;
  const first = fragment.firstElementChild;
  list.append(fragment);
  if (before && first && Number(first.dataset.key) < Number(before.dataset.key)) inOrder(list);
  trim(list);
  box.querySelector(".empty")?.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
  last = performance.now();
}

function kind(level) {
  return level >= 50 ? "critical" : level >= 40 ? "error" : level >= 30 ? "warning" : level >= 20 ? "info" : "debug";
}

// A task run's id is made of where its series begins and its number there; so is its name.
function nameOf(id, series) {
  const whole = BigInt(`0x${id.replaceAll("-", "")}`);
  const random = (((whole >> 64n) & 0xfffn) << 62n) | (whole & ((1n << 62n) - 1n));
  let found = null;
  for (const [base, task] of series) if (base <= random && (!found || base > found[0])) found = [base, task];
  return found ? `${found[1]}-${random - found[0]}` : "task run";
}

function made(line, box, series) {
  const item = document.createElement("li");
  item.className = `is-${kind(line.level)}`;
  item.dataset.key = line.key;
  const at = document.createElement("time");
  at.className = "at";
  at.dateTime = line.at;
  at.dataset.clock = "";
  const level = document.createElement("span");
  level.className = "level";
  level.textContent = line.level_name;
  const message = document.createElement("span");
  message.className = "text";
  if (line.task_run_id && !box.dataset.taskRun) {
    const who = document.createElement("a");
    who.className = "who";
    who.href = `/task-runs/${line.task_run_id}`;
    who.textContent = nameOf(line.task_run_id, series);
    message.append(who, " ");
  }
  const said = document.createElement("span");
  said.className = "said";
  said.textContent = line.message;
  mark(said, box.dataset.text);
  message.append(said);
  item.append(at, level, message);
  return item;
}

// The text that is searched for stands out.
function mark(element, text) {
  if (!text) return;
  const content = element.textContent;
  const place = content.toLowerCase().indexOf(text.toLowerCase());
  if (place < 0) return;
  const found = document.createElement("mark");
  found.textContent = content.slice(place, place + text.length);
  element.replaceChildren(content.slice(0, place), found, content.slice(place + text.length));
}
