// Rows that are chosen, for what is done to many at once; rows that open when they are clicked beside their links.

export function choosing() {
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-choose-all]")) {
      for (const box of document.querySelectorAll("[data-choose]")) box.checked = event.target.checked;
    }
    if (event.target.matches("[data-choose], [data-choose-all], [data-choose-fitting]")) say();
  });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("[data-href]");
    if (!row || event.target.closest("a, button, input, label, summary, form") || String(getSelection())) return;
    if (event.metaKey || event.ctrlKey) window.open(row.dataset.href);
    else location.assign(row.dataset.href);
  });
  document.addEventListener("upwell:refreshed", say);
  say();
}

function say() {
  const bulk = document.querySelector("[data-bulk]");
  if (!bulk) return;
  const boxes = [...document.querySelectorAll("[data-choose]")];
  const number = boxes.filter((box) => box.checked).length;
  bulk.hidden = number === 0;
  const fitting = bulk.querySelector("[data-choose-fitting]");
  if (fitting && number === 0) fitting.checked = false;
  bulk.querySelector("[data-chosen-number]").textContent = fitting?.checked ? "All chosen" : `${number} chosen`;
  const all = document.querySelector("[data-choose-all]");
  if (all) {
    all.checked = number > 0 && number === boxes.length;
    all.indeterminate = number > 0 && number < boxes.length;
  }
}
