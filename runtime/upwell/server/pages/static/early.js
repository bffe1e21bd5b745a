// Keys that are pressed before the page's modules have come. They wait here, in their order, and keys.js answers them.

window.earlyKeys = {
  pressed: [],
  keep(event) {
    if (event.key === "/" || ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k")) event.preventDefault();
    window.earlyKeys.pressed.push(event);
  },
};
document.addEventListener("keydown", window.earlyKeys.keep);
