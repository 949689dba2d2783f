// What is known about the actions of the video: undo, redo, and saving.
const RETRY_MS = 1500;
const frameSeconds = 1 / (data.fps || 25);
// Of the detections before any correction, by id.
const originals = new Map();
const items = new Map();

// The nearest boundary of two frames, to the microsecond.
const snapped = (seconds) => clamp(Number((Math.round(seconds / frameSeconds) *
  frameSeconds).toFixed(6)), 0, data.duration);

function labelIndex(name) {
  const index = data.labels.indexOf(name);
  return index >= 0 ? index : data.labels.push(name) - 1;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return `h${[...bytes].map((one) =>
    one.toString(16).padStart(2, "0")).join("")}`;
}

// An action as it is saved; null where it has no verdict.
const saved = (item) => !item || item.verdict === "open" ? null : {
  label: data.labels[item.label], start_seconds: item.start,
  end_seconds: item.end, verdict: item.verdict};

function setItem(id, values) {
  const original = originals.get(id);
  if (!values && !original) {
    items.delete(id);
    return;
  }
  const item = items.get(id) ?? {id};
  items.set(id, Object.assign(item, {score: original?.score,
    strength: original?.score}, values ? {start: values.start_seconds,
    end: values.end_seconds, label: labelIndex(values.label),
    verdict: values.verdict} : {...original, verdict: "open"}));
}

// Returns the answer to a request, {error} where there is none.
async function ask(address, body) {
  try {
    return await (await fetch(address, body && {method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify(body)})).json();
  } catch {
    return {error: "losa_jax.review does not answer"};
  }
}

const review = {
  revision: 0,
  isComplete: false,
  done: [],
  undone: [],
  // What is not sent yet, and whether an answer is awaited.
  waiting: null,
  isSending: false,

  load(state) {
    this.revision = state.revision;
    this.isComplete = state.is_complete;
    state.classes.forEach(labelIndex);
    for (const {id, detected, score} of state.actions) {
      if (detected) {
        const [start, end, label] = detected;
        originals.set(id, {start, end, label: labelIndex(label), score});
      }
    }
    const judged = new Map(state.actions.map((one) => [one.id, {
      label: one.label, start_seconds: one.start, end_seconds: one.end,
      verdict: one.verdict}]));
    for (const id of new Set([...items.keys(), ...originals.keys(),
      ...judged.keys()])) {
      setItem(id, judged.get(id) ?? null);
    }
  },

  // Changes actions, {id: as `saved` returns}, and saves them.
  change(changes, isComplete = this.isComplete) {
    const before = Object.fromEntries(Object.keys(changes).map((id) =>
      [id, saved(items.get(id))]));
    this.done.push({before, after: changes, wasComplete: this.isComplete,
      isComplete});
    this.undone = [];
    this.apply(changes, isComplete);
  },

  undo() {
    const step = this.done.pop();
    if (!step) return [];
    this.undone.push(step);
    this.apply(step.before, step.wasComplete);
    return Object.keys(step.before);
  },

  redo() {
    const step = this.undone.pop();
    if (!step) return [];
    this.done.push(step);
    this.apply(step.after, step.isComplete);
    return Object.keys(step.after);
  },

  apply(changes, isComplete) {
    for (const [id, values] of Object.entries(changes)) setItem(id, values);
    this.isComplete = isComplete;
    this.wait(changes, isComplete);
    refresh();
    this.send();
  },

  // Adds to what is to be sent.
  wait(changes, isComplete) {
    this.waiting = {changes: {...this.waiting?.changes, ...changes},
      is_complete: isComplete};
  },

  async send() {
    if (this.isSending || !this.waiting) return;
    const {changes, is_complete} = this.waiting;
    this.waiting = null;
    this.isSending = true;
    showSaved("saving …");
    const answer = await ask(String(data.number), {
      revision: this.revision, changes, is_complete});
    this.isSending = false;
    if (!answer.actions) {
      // Later changes replace earlier ones.
      const later = this.waiting;
      this.waiting = {changes: {...changes, ...later?.changes},
        is_complete: later?.is_complete ?? is_complete};
      showSaved("not saved", `${answer.error}. The last changes are not ` +
        "saved yet, and this page tries again. If losa_jax.review was " +
        "stopped, start it again, open the address that it prints, and " +
        "repeat them there.");
      setTimeout(() => this.send(), RETRY_MS);
    } else if (!answer.error) {
      this.revision = answer.revision;
      if (this.waiting) this.send();
      else showSaved("saved");
    } else {
      const lost = {...changes, ...this.waiting?.changes};
      this.waiting = null;
      this.done = [];
      this.undone = [];
      this.load(answer);
      refresh();
      retrace(Object.keys(lost));
      showSaved("saved", `${answer.error}. The page now shows what is saved; ` +
        "your last change is not in it.");
    }
  },

  get isSaved() {
    return !this.isSending && !this.waiting;
  },
};

function showSaved(text, problem = "") {
  $("saved").textContent = text;
  $("saved").classList.toggle("unsaved", text === "not saved");
  // A refusal stays until the next change is saved.
  if (problem || text === "saved") {
    $("problem").textContent = problem;
    $("problem").hidden = !problem;
  }
}

for (const [id, start, end, label, score] of data.detections) {
  originals.set(id, {start, end, label: labelIndex(label), score});
}
review.load(data.state);

// A page that the browser kept shows an old state.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
addEventListener("beforeunload", (event) => {
  if (!review.isSaved) event.preventDefault();
});
