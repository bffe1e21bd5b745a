// Forms: filters that apply as one types or chooses, questions before what cannot be undone, one sending at a time.

const WAIT_MS = 350;

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
    if (form.method === "get") for (const field of form.elements) if (!field.value && field.name) field.disabled = true;
    if (form.method === "post") setTimeout(() => {
      for (const button of form.querySelectorAll("button")) button.disabled = true;
    });
  });
  window.addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form :disabled")) field.disabled = field.hasAttribute("data-off");
  });
  for (const form of document.querySelectorAll("form[data-filter]")) {
    let timer = 0;
    form.addEventListener("change", (event) => { if (event.target.matches("select")) form.requestSubmit(); });
    form.addEventListener("input", (event) => {
      if (!event.target.matches("input[type=search]")) return;
      clearTimeout(timer);
      timer = setTimeout(() => {
        sessionStorage.setItem("upwell-filter", event.target.name);
        form.requestSubmit();
      }, WAIT_MS);
    });
  }
  for (const field of document.querySelectorAll("[data-own-zone]")) field.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  goOnTyping();
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

// A filter applied while it is typed leaves the cursor where it was.
function goOnTyping() {
  const name = sessionStorage.getItem("upwell-filter");
  sessionStorage.removeItem("upwell-filter");
  const field = name && document.querySelector(`form[data-filter] input[name="${CSS.escape(name)}"]`);
  if (field) {
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
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
