"use strict";

// Asks the service that this page came from, and shows what its models answer.
// What a user typed or a model answered becomes text of the page, never HTML.

// This file is …/demo/demo.js, whatever stands before that: a proxy may serve all of it below a path of its own.
const HOME = new URL("..", document.currentScript.src);
const KEY = "lightft-key";
const MOST_BARS = 12;
const COLOURS = 7;

const TASKS = {
  "token-classification": {
    words: "token classification",
    verb: "Find entities",
    example: "Angela Merkel met Ban Ki-moon of the United Nations in New York, and flew back to Berlin on Lufthansa.",
    answer: predict,
    show: showEntities,
  },
  "text-classification": {
    words: "text classification",
    verb: "Classify",
    example: "A quiet, beautifully acted film that stays with you long after it has ended.",
    answer: predict,
    show: showClasses,
  },
  "causal-lm": {
    words: "language model",
    verb: "Write",
    example: "Name three cities in Europe and say what each is known for.",
    answer: generate,
    show: showTexts,
  },
};

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const hiddenTypes = new Set();
let models = [];
let typeNumbers = new Map();
let running = null;
let cleared = "";

// ---------------------------------------------------------------------------------------------------- the service

/** What the user should read instead of an answer. */
class Refusal extends Error {}

async function call(path, body, signal) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  const method = body ? "POST" : "GET";
  let response;
  try {
    response = await fetch(new URL(path, HOME), { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. See whether it still runs, then try again.");
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

async function refusalOf(response) {
  if (response.status === 401) return new Refusal(askForKey());
  const body = await response.json().catch(() => null);
  const messages = Array.isArray(body?.detail) ? body.detail.map((one) => one.msg) : [];
  const said = messages.join("\n") || `The server answered with the status ${response.status}.`;
  const seconds = secondsUntil(response.headers.get("Retry-After"));
  return new Refusal(seconds === null ? said : `${said}\nTry again in ${counted(seconds, "second")}.`);
}

/** The header holds seconds, or a date. */
function secondsUntil(header) {
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : Math.ceil((Date.parse(header) - Date.now()) / 1000);
  return Number.isNaN(seconds) ? null : Math.max(1, seconds);
}

async function predict(model, text, signal) {
  return (await call("predict", { model: model.name, text }, signal)).json();
}

/** Shows a text while it is being written; what was written before a stop is kept. */
async function generate(model, prompt, signal, column) {
  const said = make("div", { className: "said writing", dir: "auto" });
  column.body.replaceChildren(said);
  const written = { model: model.name, text: "", new_tokens: null, finish: "stopped" };
  try {
    const body = { model: model.name, prompt, max_new_tokens: Number(page.most.value), stream: true };
    for await (const event of eventsOf(await call("generate", body, signal))) {
      if (event.detail) throw new Refusal(event.detail.map((one) => one.msg).join("\n"));
      if (event.text) {
        written.text += event.text;
        said.append(printable(event.text));
      }
      if (event.done) return { ...written, new_tokens: event.new_tokens, finish: event.finish };
    }
    throw new Refusal("The answer broke off: the connection was lost. Try again.");
  } catch (error) {
    if (error.name === "AbortError") return written;
    if (error instanceof TypeError) throw new Refusal("The answer broke off: the connection was lost. Try again.");
    throw error;
  } finally {
    said.classList.remove("writing");
  }
}

/** Yields the data of server-sent events, which a blank line ends. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    unread += value;
    const blocks = unread.split(/\r?\n\r?\n/);
    unread = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

// ------------------------------------------------------------------------------------------------- start and asking

async function start() {
  page.again.hidden = true;
  complain("");
  say("Asking the service what it serves…");
  try {
    const service = await (await call("")).json();
    models = service.models.filter((model) => Object.hasOwn(TASKS, model.task));
    show(service);
  } catch (error) {
    complain(error instanceof Refusal ? error.message : "What answered here is no service of lightft.");
    page.again.hidden = !page["key-form"].hidden;
  }
  say("");
}

function show(service) {
  const types = models.filter((model) => model.task === "token-classification").flatMap((model) => model.labels);
  typeNumbers = new Map([...new Set(types)].map((type, number) => [type, number]));
  page.service.textContent = `${service.name} ${service.version} · ${counted(models.length, "model")}`;
  page["key-form"].hidden = true;
  page.ask.hidden = models.length === 0;
  if (models.length === 0) return complain("This service has no model that answers texts.");
  const withKey = sessionStorage.getItem(KEY) !== null;
  page.forget.hidden = !withKey;
  // A link cannot send the key.
  page.api.hidden = withKey;
  page.model.replaceChildren(...models.map((model) => new Option(printable(model.name), model.name)));
  page.model.value = service.default_model;
  if (page.model.selectedIndex < 0) page.model.selectedIndex = 0;
  chooseModel();
}

function chooseModel() {
  const model = models[page.model.selectedIndex];
  const task = TASKS[model.task];
  const alike = models.filter((other) => other !== model && other.task === model.task);
  const before = page.other.value;
  page.other.replaceChildren(
    new Option("nothing", ""),
    ...alike.map((other) => new Option(printable(other.name), other.name)),
  );
  page.other.value = alike.some((other) => other.name === before) ? before : "";
  page["other-field"].hidden = alike.length === 0;
  page["most-field"].hidden = model.task !== "causal-lm";
  page.go.textContent = task.verb;
  page.title.textContent = printable(model.name);
  page.facts.textContent = factsOf(model);
  document.title = `${printable(model.name)} – lightft`;
  const isUntouched = Object.values(TASKS).some((one) => one.example === page.text.value);
  if (!page.text.value || isUntouched) page.text.value = task.example;
  forgetAnswers();
}

function factsOf(model) {
  const facts = [TASKS[model.task].words];
  if (model.adapter) facts.push(`${model.adapter} on ${model.base}`);
  if (model.parameters) facts.push(`${inMillions(model.parameters)} parameters`);
  facts.push(`${model.runtime} ${model.precision}`, `reads ${model.max_length.toLocaleString("en")} tokens at once`);
  return printable(facts.join(" · "));
}

async function ask() {
  const text = page.text.value;
  if (!text.trim()) {
    say("There is no text yet. Type or paste one.");
    return page.text.focus();
  }
  running?.abort();
  const mine = (running = new AbortController());
  const asked = [page.model.value, page.other.value].filter(Boolean);
  const chosen = asked.map((name) => models.find((model) => model.name === name));
  const task = TASKS[chosen[0].task];
  const columns = chosen.map((model) => columnOf(model, chosen.length === 2));
  // A text is seen while it is written; other answers take the place of the former ones at once.
  const isWritten = chosen[0].task === "causal-lm";
  if (isWritten) place(columns);
  page.stop.hidden = !isWritten;
  page.results.ariaBusy = "true";
  complain("");
  say(`${columns.map((column) => column.name).join(" and ")}: at work…`);
  const outcomes = await Promise.all(
    columns.map((column) => task.answer(column.model, text, mine.signal, column).catch((error) => error)),
  );
  // Asked again, or cleared, in the meantime.
  if (running !== mine) return;
  running = null;
  page.stop.hidden = true;
  page.results.ariaBusy = "false";
  if (outcomes.some((one) => one.name === "AbortError")) {
    forgetAnswers();
    return say("Stopped.");
  }
  showOutcomes(task, columns, outcomes, text);
}

function showOutcomes(task, columns, outcomes, text) {
  const unexpected = outcomes.find((one) => one instanceof Error && !(one instanceof Refusal));
  if (unexpected) {
    complain("The answer could not be shown.");
    throw unexpected;
  }
  const refusals = outcomes.filter((one) => one instanceof Refusal);
  complain([...new Set(refusals.map((one) => one.message).filter(Boolean))].join("\n"));
  columns.forEach((column, own) => (column.answer = outcomes[own] instanceof Refusal ? null : outcomes[own]));
  const answered = columns.filter((column) => column.answer);
  for (const column of columns) if (!column.answer) column.state("No answer");
  place(columns);
  // What was written before an answer broke off stays.
  page.results.hidden = answered.length === 0 && !columns.some((column) => column.body.textContent);
  if (answered.length) task.show(answered, text);
  for (const column of answered) column.root.append(asJson(column.answer));
  // Who sees the answers needs no second account of them.
  say(answered.map((column) => `${column.name}: ${column.stated}.`).join(" "), { aside: true });
}

/** The heading of one of two answers is the model's name, that of the only answer is what it comes to. */
function columnOf(model, isOneOfTwo) {
  const name = printable(model.name);
  const heading = make("h2", {}, isOneOfTwo ? name : "…");
  const summary = isOneOfTwo ? make("p", { className: "summary" }) : heading;
  const body = make("div");
  const column = { model, name, body, answer: null, stated: "" };
  column.state = (words) => (summary.textContent = column.stated = words);
  column.root = make("article", {}, heading, ...(isOneOfTwo ? [summary] : []), body);
  return column;
}

function place(columns) {
  page.columns.classList.toggle("two", columns.length === 2);
  page.columns.replaceChildren(...columns.map((column) => column.root));
  page.difference.hidden = true;
  page.legend.hidden = true;
  page.results.hidden = false;
}

function forgetAnswers() {
  const unfinished = running;
  running = null;
  unfinished?.abort();
  page.stop.hidden = true;
  page.results.hidden = true;
  page.columns.replaceChildren();
  complain("");
  say("");
}

/** What was written until now stays. */
function stop() {
  running?.abort();
}

function clear() {
  forgetAnswers();
  // What was cleared by mistake comes back.
  [cleared, page.text.value] = [page.text.value, page.text.value ? "" : cleared];
  nameClearButton();
  page.text.focus();
}

function nameClearButton() {
  page.clear.textContent = page.text.value || !cleared ? "Clear" : "Bring back";
}

// --------------------------------------------------------------------------------------------------------- the key

/** Returns what to complain about: nothing when no key was given yet. */
function askForKey() {
  const had = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  page["key-form"].hidden = false;
  page.ask.hidden = true;
  page.forget.hidden = true;
  page.api.hidden = true;
  page.key.focus();
  return had ? "The service did not accept this key. Check it, and give it again." : "";
}

function useKey() {
  const key = page.key.value.trim();
  // A header carries nothing else.
  if (!/^[\x20-\x7e]+$/.test(key)) return complain("A key has letters, digits and signs of ASCII alone.");
  sessionStorage.setItem(KEY, key);
  page.key.value = "";
  return start();
}

// -------------------------------------------------------------------------------------------------------- entities

function showEntities(columns, text) {
  // The service counts code points, JavaScript halves of some of them.
  const letters = [...text];
  const sets = columns.map((column) => new Set(column.answer.entities.map(keyOf)));
  columns.forEach((column, own) => {
    const others = sets.filter((_, number) => number !== own);
    const entities = [...column.answer.entities].sort((a, b) => a.start - b.start || b.end - a.end);
    const isAlone = (entity) => others.some((set) => !set.has(keyOf(entity)));
    const alone = entities.filter(isAlone).length;
    const found = entities.length ? counted(entities.length, "entity", "entities") : "No entities";
    column.state(others.length ? `${found}, ${alone} only here` : found);
    const said = make("div", { className: "said", dir: "auto" }, marked(letters, entities, isAlone));
    column.body.replaceChildren(said);
    if (entities.length) column.body.append(asTable(letters, entities, others.length ? isAlone : null));
  });
  if (columns.length === 2) {
    const shared = [...sets[0]].filter((key) => sets[1].has(key)).length;
    const [first, second] = sets.map((set) => set.size - shared);
    const names = columns.map((column) => make("b", {}, column.name));
    const outlined = ["Outlined: ", `${first} only in `, names[0], `, ${second} only in `, names[1], "."];
    const same = `${counted(shared, "entity is", "entities are")} the same in both. `;
    tell(same, ...(first + second ? outlined : ["They do not differ."]));
  }
  showLegend(columns);
}

/** Entities of one key are the same, whatever their scores. */
function keyOf(entity) {
  return `${entity.start} ${entity.end} ${entity.label}`;
}

/** A text with a mark around each entity; of two that cross, the later is drawn in two pieces. */
function marked(letters, entities, isAlone) {
  const edges = new Set([0, letters.length, ...entities.flatMap((entity) => [entity.start, entity.end])]);
  const [first, ...rest] = [...edges].sort((a, b) => a - b);
  const root = document.createDocumentFragment();
  let open = [];
  let start = first;
  const begin = (entity, more) => {
    const kind = `${styleOf(entity.label)}${isAlone(entity) ? " alone" : ""}${more}`;
    const node = make("mark", { className: kind, title: describe(entity) });
    node.dataset.type = entity.label;
    (open.at(-1)?.node ?? root).append(node);
    open.push({ entity, node });
  };
  for (const end of rest) {
    for (const entity of entities) if (entity.start === start) begin(entity, "");
    (open.at(-1)?.node ?? root).append(printable(letters.slice(start, end).join("")));
    const outermost = open.findIndex(({ entity }) => entity.end === end);
    const closed = outermost < 0 ? [] : open.splice(outermost);
    for (const { entity, node } of closed) if (entity.end === end) node.append(labelOf(entity));
    for (const { entity } of closed) if (entity.end !== end) begin(entity, " goes-on");
    start = end;
  }
  return root;
}

function labelOf(entity) {
  const label = make("b", {}, printable(entity.label));
  if (typeof entity.score === "number") label.append("\u00a0", make("i", {}, entity.score.toFixed(2)));
  return label;
}

function describe(entity) {
  const score = typeof entity.score === "number" ? `, score ${entity.score.toFixed(3)}` : "";
  return printable(`${entity.label}${score}, characters ${entity.start} to ${entity.end}`);
}

/** The classes of a type: its colour, and another line where the colours begin again. */
function styleOf(type) {
  if (!typeNumbers.has(type)) typeNumbers.set(type, typeNumbers.size);
  const number = typeNumbers.get(type);
  return `type-${number % COLOURS} line-${Math.floor(number / COLOURS) % 3}`;
}

function showLegend(columns) {
  const counts = new Map();
  columns.forEach((column, own) => {
    for (const { label } of column.answer.entities) {
      if (!counts.has(label)) counts.set(label, columns.map(() => 0));
      counts.get(label)[own] += 1;
    }
  });
  const types = [...counts.keys()].sort((a, b) => typeNumbers.get(a) - typeNumbers.get(b));
  page.legend.replaceChildren(
    ...types.map((type) => {
      const count = make("span", { className: "count" }, counts.get(type).join(" | "));
      const swatch = make("span", { className: "swatch", ariaHidden: "true" });
      const button = make("button", { type: "button", className: styleOf(type) }, swatch, printable(type), count);
      button.ariaPressed = String(!hiddenTypes.has(type));
      button.addEventListener("click", () => {
        if (!hiddenTypes.delete(type)) hiddenTypes.add(type);
        button.ariaPressed = String(!hiddenTypes.has(type));
        hideTypes();
      });
      return button;
    }),
  );
  page.legend.hidden = types.length === 0;
  hideTypes();
}

function hideTypes() {
  for (const mark of page.columns.querySelectorAll("mark")) {
    mark.classList.toggle("off", hiddenTypes.has(mark.dataset.type));
  }
  for (const row of page.columns.querySelectorAll("tr[data-type]")) row.hidden = hiddenTypes.has(row.dataset.type);
}

function asTable(letters, entities, isAlone) {
  const headings = ["Entity", "Type", "Score", ...(isAlone ? ["Found by"] : []), "Characters"];
  const styles = headings.map((heading) => (heading === "Score" || heading === "Characters" ? "number" : ""));
  const head = headings.map((heading, column) => make("th", { scope: "col", className: styles[column] }, heading));
  const rows = entities.map((entity) => {
    const score = typeof entity.score === "number" ? entity.score.toFixed(3) : "–";
    const cells = [printable(entity.label), score];
    if (isAlone) cells.push(isAlone(entity) ? "this only" : "both");
    cells.push(`${entity.start}–${entity.end}`);
    const name = make("th", { scope: "row" }, printable(letters.slice(entity.start, entity.end).join("")));
    const data = cells.map((cell, before) => make("td", { className: styles[before + 1] }, cell));
    const row = make("tr", {}, name, ...data);
    row.dataset.type = entity.label;
    return row;
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Entities" }, table);
  return folded("As a table", scroll);
}

// ------------------------------------------------------------------------------------------------ classes and texts

function showClasses(columns) {
  // Both in the order of the first, so that they are compared line by line; what it does not know comes last.
  const order = [...new Set(columns.flatMap((column) => byProbability(column.answer.probabilities)))];
  for (const column of columns) {
    const { label, probabilities } = column.answer;
    column.state(printable(label));
    const bars = order.filter((one) => Object.hasOwn(probabilities, one)).map((one) => bar(one, probabilities[one], one === label));
    const shown = make("ul", { className: "bars" }, ...bars.slice(0, MOST_BARS));
    column.body.replaceChildren(shown);
    if (bars.length > MOST_BARS) {
      const others = make("ul", { className: "bars" }, ...bars.slice(MOST_BARS));
      column.body.append(folded(`${bars.length - MOST_BARS} more`, others));
    }
  }
  if (columns.length === 2) {
    const [first, second] = columns.map((column) => printable(column.answer.label));
    const [one, other] = columns.map((column) => make("b", {}, column.name));
    tell(...(first === second ? [`Both say ${first}.`] : [one, ` says ${first}, `, other, ` says ${second}.`]));
  }
}

function byProbability(probabilities) {
  return Object.keys(probabilities).sort((a, b) => probabilities[b] - probabilities[a]);
}

function bar(label, probability, isAnswer) {
  const filled = make("span");
  filled.style.width = `${100 * probability}%`;
  return make(
    "li",
    { className: isAnswer ? "is-answer" : "" },
    make("span", { className: "name" }, printable(label)),
    make("span", { className: "share" }, inPercent(probability)),
    make("span", { className: "bar", ariaHidden: "true" }, filled),
  );
}

function showTexts(columns) {
  for (const column of columns) {
    const { new_tokens: tokens, finish } = column.answer;
    column.state(finish === "stopped" ? "Stopped" : counted(tokens, "token") + (finish === "length" ? ", cut off at the limit" : ""));
  }
  if (columns.length === 2 && columns.every((column) => column.answer.finish !== "stopped")) {
    const isSame = columns[0].answer.text === columns[1].answer.text;
    tell(isSame ? "Both wrote the same." : "They wrote different texts.");
  }
}

// ----------------------------------------------------------------------------------------------------------- words

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function folded(summary, content) {
  return make("details", {}, make("summary", {}, summary), content);
}

function asJson(answer) {
  return folded("As JSON", make("pre", { className: "scroll", tabIndex: 0 }, JSON.stringify(answer, null, 2)));
}

/** Control characters, and those that turn around the text after them, are shown as U+FFFD: one for one. */
function printable(text) {
  return text.toWellFormed().replace(/[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]/g, "\ufffd");
}

function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function inPercent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

function inMillions(number) {
  return number < 1e6 ? number.toLocaleString("en") : `${(number / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} M`;
}

/** With ``aside``, only screen readers say it. */
function say(message, { aside = false } = {}) {
  page.status.replaceChildren(make("span", { className: aside ? "aside" : "" }, message));
}

function tell(...words) {
  page.difference.replaceChildren(...words);
  page.difference.hidden = false;
}

function complain(message) {
  page.problem.textContent = message;
  page.problem.hidden = !message;
}

// ------------------------------------------------------------------------------------------------------ what a user does

page.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
page["key-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  useKey();
});
page.model.addEventListener("change", chooseModel);
page.other.addEventListener("change", forgetAnswers);
page.text.addEventListener("input", nameClearButton);
page.stop.addEventListener("click", stop);
page.clear.addEventListener("click", clear);
page.again.addEventListener("click", start);
page.example.addEventListener("click", () => {
  page.text.value = TASKS[models[page.model.selectedIndex].task].example;
  nameClearButton();
  page.text.focus();
});
page.forget.addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  forgetAnswers();
  start();
});
document.addEventListener("keydown", (event) => {
  if (page.ask.hidden || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    page.ask.requestSubmit();
  }
  // In an open list, Escape closes the list.
  if (event.key === "Escape" && !(event.target instanceof HTMLSelectElement)) {
    if (running) stop();
    else if (page.text.value || !page.results.hidden) clear();
  }
});

start();
