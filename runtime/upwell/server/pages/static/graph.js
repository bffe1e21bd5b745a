// The dependency graph: dragged to be moved in; what a node needs and feeds is shown when it is pointed at.

export function graph() {
  for (const box of document.querySelectorAll(".graph")) {
    let from = null;
    box.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && !event.target.closest("a")) from = [event.clientX + box.scrollLeft, event.clientY + box.scrollTop];
      box.classList.toggle("dragged", Boolean(from));
    });
    box.addEventListener("pointermove", (event) => {
      if (from) box.scrollTo(from[0] - event.clientX, from[1] - event.clientY);
    });
    for (const name of ["pointerup", "pointerleave"]) box.addEventListener(name, () => {
      from = null;
      box.classList.remove("dragged");
    });
    const mark = (event, on) => {
      const node = event.target.closest?.("[data-node]");
      if (!node) return;
      for (const edge of box.querySelectorAll(".edge")) {
        edge.classList.toggle("on", on && (edge.dataset.from === node.dataset.node || edge.dataset.to === node.dataset.node));
      }
    };
    box.addEventListener("pointerover", (event) => mark(event, true));
    box.addEventListener("pointerout", (event) => mark(event, false));
    box.addEventListener("focusin", (event) => mark(event, true));
    box.addEventListener("focusout", (event) => mark(event, false));
  }
}
