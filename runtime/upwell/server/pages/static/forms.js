// Forms: questions before what cannot be undone, one sending at a time; and the menus that forms are in.

export function forms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const fitting = form.querySelector("[data-choose-fitting]")?.checked;
    const many = fitting ? `${event.submitter?.textContent.trim()} the chosen runs?` : undefined;
    const said = event.submitter?.dataset.confirm ?? form.dataset.confirm ?? many;
    const asks = fitting ? said?.replace("the chosen runs", "all runs that fit this filter") : said;
    if (asks && !confirm(asks)) {
      event.preventDefault();
      return;
    }
    if (form.method === "post") setTimeout(() => {
      for (const button of form.querySelectorAll("button")) button.disabled = true;
    });
  });
  window.addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form :disabled")) field.disabled = field.hasAttribute("data-off");
  });
  for (const field of document.querySelectorAll("[data-own-zone]")) field.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  menus();
  document.querySelector("[aria-invalid=true]")?.focus();
  whatIsShown();
  answerTheEarly();
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; }));
  }
}

// What was changed, or to be sent, before this module had come.
function answerTheEarly() {
  const { changed, asked, change, send } = window.earlyForms;
  document.removeEventListener("input", change);
  document.removeEventListener("submit", send);
  for (const field of changed) field.dispatchEvent(new Event(field.matches("select") ? "change" : "input", { bubbles: true }));
  for (const [form, submitter] of asked.slice(-1)) form.requestSubmit(submitter);
}

// A menu is left as it is expected: by Escape, or by a click anywhere else.
function menus() {
  const open = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("click", (event) => {
    for (const menu of open()) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of open()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

// Parts of a form that only one choice needs: `data-when="kind=cron"`.
function whatIsShown() {
  for (const form of document.querySelectorAll("form")) {
    const parts = form.querySelectorAll("[data-when]");
    if (!parts.length) continue;
    const show = () => {
      for (const part of parts) {
        const [name, value] = part.dataset.when.split("=");
        part.hidden = new FormData(form).get(name) !== value;
        for (const field of part.querySelectorAll("input, select, textarea")) {
          field.disabled = part.hidden;
          field.toggleAttribute("data-off", part.hidden);
        }
      }
    };
    form.addEventListener("change", show);
    show();
  }
}
