// Relative times that go on, and exact ones in the reader's own zone.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function ago(moment, now) {
  const seconds = (now - moment) / 1000;
  const size = Math.abs(seconds);
  if (size < 1) return seconds >= 0 ? "just now" : "now";
  if (size >= 7 * 86400) {
    const year = moment.getFullYear() === now.getFullYear() ? undefined : "numeric";
    return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", year });
  }
  const [unit, name] = UNITS.find(([least]) => size >= least);
  const said = `${Math.floor(size / unit)} ${name}`;
  return seconds > 0 ? `${said} ago` : `in ${said}`;
}

export function took(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [large, name, small, rest] = whole < 3600 ? [Math.floor(whole / 60), "min", "s", whole % 60]
    : whole < 86400 ? [Math.floor(whole / 3600), "h", "min", Math.floor((whole % 3600) / 60)]
    : [Math.floor(whole / 86400), "d", "h", Math.floor((whole % 86400) / 3600)];
  return rest ? `${large} ${name} ${rest} ${small}` : `${large} ${name}`;
}

const EXACT = new Intl.DateTimeFormat(undefined, {
  dateStyle: "medium", timeStyle: "medium",
});
const PRECISE = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

function say(root) {
  const now = new Date();
  for (const time of root.querySelectorAll("time[data-ago]")) {
    const moment = new Date(time.dateTime);
    set(time, ago(moment, now));
    if (!time.dataset.exact) {
      time.dataset.exact = "yes";
      time.title = `${EXACT.format(moment)} (${ZONE})\n${time.title}`;
    }
  }
  for (const time of root.querySelectorAll("time[data-since]")) {
    set(time, took((now - new Date(time.dateTime)) / 1000));
  }
  for (const time of root.querySelectorAll("time[data-moment]:not([data-exact])")) {
    time.dataset.exact = "yes";
    time.title = time.textContent;
    set(time, `${PRECISE.format(new Date(time.dateTime))} (${ZONE})`);
  }
  for (const text of root.querySelectorAll("[data-hour]")) {
    const moment = new Date(text.dataset.hour);
    if (/^\d\d:\d\d$/.test(text.textContent)) {
      set(text, `${String(moment.getHours()).padStart(2, "0")}:${String(moment.getMinutes()).padStart(2, "0")}`);
    }
  }
  for (const text of root.querySelectorAll("time[data-clock]:not([data-exact])")) {
    const moment = new Date(text.dateTime);
    text.dataset.exact = "yes";
    const two = (number, size = 2) => String(number).padStart(size, "0");
    set(text, `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}.${two(moment.getMilliseconds(), 3)}`);
    text.title = `${EXACT.format(moment)} (${ZONE})`;
  }
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function localTimes(root = document) {
  say(root);
  if (root !== document) return;
  setInterval(() => { if (!document.hidden) say(document); }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) say(document); });
}
