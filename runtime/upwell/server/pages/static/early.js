// What is done before the page's modules have come waits here: keys, in their order, for keys.js; for forms.js fields that
// were changed, and what is not to be sent before a question was answered.

window.earlyKeys = {
  pressed: [],
  keep(event) {
    if (event.key === "/" || ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k")) event.preventDefault();
    window.earlyKeys.pressed.push(event);
  },
};
document.addEventListener("keydown", window.earlyKeys.keep);

window.earlyForms = {
  changed: new Set(),
  asked: [],
  change(event) {
    window.earlyForms.changed.add(event.target);
  },
  send(event) {
    if (!event.submitter?.dataset.confirm && !event.target.dataset.confirm) return;
    event.preventDefault();
    window.earlyForms.asked.push([event.target, event.submitter]);
  },
};
document.addEventListener("input", window.earlyForms.change);
document.addEventListener("submit", window.earlyForms.send);
