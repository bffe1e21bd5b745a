// The log of a run: lines come as they are written, if they pass the filter that the page was asked for.

import { localTimes } from "./times.js";

const MOST_LINES = 5000;
const NEAR_END_PX = 40;

let waiting = [];

export function logs() {
  const box = document.querySelector("[data-logs]");
  if (!box) return;
  if (box.dataset.following === "yes") box.scrollTop = box.scrollHeight;
  for (const text of box.querySelectorAll(".said")) mark(text, box.dataset.text);
}

// What was written between the making of the page and the beginning of its stream: in the page as it is now.
export function missedLines(fresh) {
  const box = document.querySelector("[data-logs]");
  const now = fresh.querySelector("[data-logs]");
  if (!box || !now) return;
  box.dataset.series = now.dataset.series;
  if (box.dataset.following !== "yes") return;
  const missed = [...now.querySelectorAll("li")].filter((line) => !isShown(box, line.dataset.key));
  if (!missed.length) return;
  const atEnd = isAtEnd(box);
  const list = box.querySelector("ol");
  list.append(...missed);
  list.append(...[...list.children].sort((one, other) => one.dataset.key - other.dataset.key));
  box.querySelector(".empty")?.remove();
  localTimes(list);
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function isShown(box, key) {
  return Boolean(box.querySelector(`li[data-key="${CSS.escape(key)}"]`));
}

function isAtEnd(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX;
}

export function logLines(line) {
  const box = document.querySelector("[data-logs]");
  if (!box || box.dataset.following !== "yes") return;
  if (line.level < Number(box.dataset.level) || !line.message.toLowerCase().includes(box.dataset.text.toLowerCase())) return;
  if (box.dataset.taskRun && line.task_run_id !== box.dataset.taskRun) return;
  if (waiting.some((other) => other.key === line.key) || isShown(box, line.key)) return;
  waiting.push(line);
  if (waiting.length === 1) requestAnimationFrame(() => put(box));
}

function put(box) {
  const atEnd = isAtEnd(box);
  const lines = waiting.slice(-MOST_LINES);
  waiting = [];
  const fragment = document.createDocumentFragment();
  const series = JSON.parse(box.dataset.series || "[]").map(([base, task]) => [BigInt(`0x${base}`), task]);
  for (const line of lines) if (!isShown(box, line.key)) fragment.append(made(line, box, series));
  const list = box.querySelector("ol");
  list.append(fragment);
  while (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
  box.querySelector(".empty")?.remove();
  localTimes(list);
  if (atEnd) box.scrollTop = box.scrollHeight;
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
