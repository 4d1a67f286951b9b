"use strict";

const $ = (id) => document.getElementById(id);
const given = JSON.parse($("data").textContent);
const isServed = given === null;
const state = { q: "", edits: {}, filter: null, doc: null, system: "hybrid" };
const OPERATORS = ["==", "!=", ">", ">=", "<", "<=", "in", "not in"]; // Haystack's
let result = null;
let newest = 0; // of answers that cross, only that to the last question is shown
let lastLookUp = 0; // and only that about the last document

/** Make an element; strings are text, never markup. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const kind = (isLiteral) => (isLiteral ? "literal" : "aligned");
const fixed = (number, digits = 2) => number.toFixed(digits);

// ---- the link that keeps the state

function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  state.q = link.get("q") ?? "";
  state.doc = link.get("doc");
  state.system = link.get("system") ?? "hybrid";
  state.filter = readFilter(link.get("field"), link.get("operator"), link.get("value"));
  state.edits = {};
  for (const [key, value] of link) {
    const factor = Number(value);
    if (key.startsWith("token:") && Number.isFinite(factor) && factor >= 0) state.edits[key.slice(6)] = factor;
  }
}

function writeLink() {
  if (!isServed) return;
  const link = new URLSearchParams();
  if (state.q) link.set("q", state.q);
  for (const [token, factor] of Object.entries(state.edits)) link.set(`token:${token}`, factor);
  for (const [name, value] of Object.entries(state.filter ?? {})) link.set(name, value);
  if (state.doc !== null && !documentOf(state.doc)?.isText) link.set("doc", state.doc);
  if (state.system !== "hybrid") link.set("system", state.system);
  history.replaceState(null, "", `#${link}`);
}

// ---- filtering

const readFilter = (field, operator, value) =>
  field && OPERATORS.includes(operator) && value?.trim() ? { field, operator, value: value.trim() } : null;

/** Return a value as it is stored: `1960` and `true` are no strings, `"1960"` is one. */
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Return Haystack's filters. */
function filters() {
  if (state.filter === null) return null;
  const { field, operator, value } = state.filter;
  const isList = operator.endsWith("in");
  const values = isList && !value.startsWith("[") ? value.split(",").map((each) => valueOf(each.trim())) : valueOf(value);
  return { field: `meta.${field}`, operator, value: values };
}

function showFilter() {
  $("field").value = state.filter?.field ?? "";
  $("operator").value = state.filter?.operator ?? "==";
  $("value").value = state.filter?.value ?? "";
}

async function offerFilter() {
  const fields = await fetch("api/fields").then((answer) => (answer.ok ? answer.json() : [])).catch(() => []);
  if (!fields.length) return; // without them, all else works
  $("field").append(...fields.map((name) => el("option", { value: name }, name)));
  $("operator").append(...OPERATORS.map((name) => el("option", { value: name }, name)));
  $("filter").hidden = false;
  showFilter();
}

// ---- asking the server

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const data = await answer.json().catch(() => ({ detail: "The server has failed; its terminal says why." }));
  if (answer.ok) return data;
  const message = typeof data.detail === "string" ? data.detail : "The request cannot be read.";
  throw new Error(message);
}

function tell(message, isError = false) {
  $("status").textContent = message;
  $("status").className = isError ? "error" : "";
}

async function search() {
  const number = ++newest;
  writeLink();
  tellWhy("");
  if (!state.q.trim()) {
    document.querySelector("main").hidden = true;
    tell("");
    return;
  }
  tell("Searching ...");
  try {
    const found = await post("api/search", { question: state.q, edits: state.edits, filters: filters() });
    if (number === newest) show(found);
  } catch (error) {
    if (number === newest) tell(error.message, true);
  }
}

function edit(token, factor) {
  if (factor === 1) delete state.edits[token];
  else state.edits[token] = factor;
  search();
}

function tellWhy(reason, ranks = {}) {
  $("reason").textContent = reason;
  const entries = Object.values(ranks).some((rank) => rank !== null) ? Object.entries(ranks) : [];
  $("ranks").replaceChildren(...entries.map(([system, rank]) =>
    el("li", {}, `${system}: `, el("b", {}, rank === null ? "no rank" : `number ${rank}`))));
}

/** Say where a document is in the rankings, and open it: `{ document_id }`, or `{ text }`. */
async function lookUp(which) {
  const [number, mine] = [newest, ++lastLookUp];
  const isLate = () => number !== newest || mine !== lastLookUp;
  try {
    const why = await post("api/why", { question: state.q, edits: state.edits, filters: filters(), ...which });
    if (isLate()) return;
    const id = why.document.id;
    tellWhy(`${id}: ${why.reason}`, why.ranks);
    result.documents[id] = { ...why.document, parts: documentOf(id)?.parts ?? {}, isText: "text" in which };
    choose(id);
  } catch (error) {
    if (!isLate()) tellWhy(error.message);
  }
}

function askWhy(event) {
  event.preventDefault();
  const which = $("which").value.trim();
  if (!which || !result) return;
  tellWhy("Looking ...");
  lookUp({ [$("kind").value]: which });
}

// ---- showing

function documentOf(id) {
  return result && id !== null && Object.hasOwn(result.documents, id) ? result.documents[id] : null;
}

function show(found) {
  const linked = documentOf(state.doc)?.isText ? null : state.doc;
  result = found;
  if (!Object.hasOwn(found.systems, state.system)) state.system = "hybrid";
  document.querySelector("main").hidden = false;
  const count = Object.keys(found.documents).length;
  tell(found.systems.hybrid.empty || `${count} documents in all rankings, ${found.note || "confidence not known"}.`);
  $("unused").textContent = found.unused.length ? `Too weak to be searched for: ${found.unused.join(", ")}.` : "";
  showTokens();
  showRankings();
  if (!documentOf(linked)) state.doc = found.systems.hybrid.hits[0]?.id ?? null;
  if (isServed && linked !== null && !documentOf(linked)) lookUp({ document_id: linked });
  showDocument();
  markChosen();
}

function tokenButtons(token, factor) {
  if (!isServed) return [];
  const isMuted = factor === 0;
  return [
    el("button", {
      type: "button", title: isMuted ? "Count it again" : "Mute",
      "aria-label": isMuted ? `Count ${token} again` : `Mute ${token}`,
      onclick: () => edit(token, isMuted ? 1 : 0),
    }, isMuted ? "↺" : "−"),
    isMuted ? null : el("button", {
      type: "button", title: factor > 1 ? "No more boost" : "Boost", "aria-pressed": String(factor > 1),
      "aria-label": `Boost ${token}`, onclick: () => edit(token, factor > 1 ? 1 : 2),
    }, factor > 1 ? "2×" : "+"),
  ];
}

function showTokens() {
  const items = result.tokens.map(({ token, weight, literal }) => el("li", { class: kind(literal), "data-token": token },
    el("span", { class: "name" }, token, el("span", { class: "weight" }, fixed(weight))),
    ...tokenButtons(token, state.edits[token] ?? 1)));
  for (const [token, factor] of Object.entries(state.edits)) {
    if (factor === 0) {
      items.push(el("li", { class: "muted", "data-token": token }, el("span", { class: "name" }, token),
        ...tokenButtons(token, 0)));
    }
  }
  $("tokens").replaceChildren(...items);
}

const textOf = (shown) => shown.text.map(([piece]) => piece).join("");

function showRankings() {
  const columns = Object.entries(result.systems).map(([name, system]) => {
    const hits = system.hits.map(({ id, score }, position) => el("li", {}, el("button", {
      type: "button", class: "hit", "data-id": id, onclick: () => choose(id),
      onmouseenter: () => markChosen(id), onmouseleave: () => markChosen(),
    },
    el("span", { class: "head" }, el("b", {}, `${position + 1}. ${id}`), el("span", {}, fixed(score))),
    el("span", { class: "snippet" }, textOf(result.documents[id]).slice(0, 160)))));
    const none = system.empty ?? "Nothing is found.";
    return el("div", { "data-system": name, class: name === state.system ? "shown" : null },
      el("h3", {}, system.name, el("small", {}, hits.length ? ` ${fixed(system.ms, 0)} ms` : "")),
      hits.length ? el("ol", {}, ...hits) : el("p", { class: "none" }, none));
  });
  const links = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  links.id = "links";
  links.setAttribute("aria-hidden", "true");
  $("rankings").replaceChildren(links, ...columns);
  $("system").replaceChildren(...Object.entries(result.systems).map(([name, system]) =>
    el("option", { value: name, selected: name === state.system ? "" : null }, system.name)));
  drawLinks();
}

/** Draw lines between the places of the same document in neighbouring rankings. */
function drawLinks() {
  const links = $("links");
  if (!links) return;
  links.replaceChildren();
  const frame = $("rankings").getBoundingClientRect();
  const columns = [...document.querySelectorAll("#rankings > div")];
  for (let i = 0; i + 1 < columns.length; i++) {
    for (const left of columns[i].querySelectorAll(".hit")) {
      const right = columns[i + 1].querySelector(`[data-id="${CSS.escape(left.dataset.id)}"]`);
      if (!right) continue;
      const [from, to] = [left.getBoundingClientRect(), right.getBoundingClientRect()];
      const [x1, y1] = [from.right - frame.left, from.top + from.height / 2 - frame.top];
      const [x2, y2] = [to.left - frame.left, to.top + to.height / 2 - frame.top];
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M${x1},${y1} C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`);
      path.dataset.id = left.dataset.id;
      links.append(path);
    }
  }
}

function markChosen(id = state.doc) {
  for (const hit of document.querySelectorAll(".hit")) {
    hit.classList.toggle("chosen", hit.dataset.id === id);
    if (hit.dataset.id === state.doc) hit.setAttribute("aria-current", "true");
    else hit.removeAttribute("aria-current");
  }
  for (const path of document.querySelectorAll("#links path")) path.classList.toggle("chosen", path.dataset.id === id);
}

function choose(id) {
  state.doc = id;
  writeLink();
  showDocument();
  markChosen();
  $("document").focus({ preventScroll: window.innerWidth > 760 });
}

function barTable(shown) {
  const largest = Math.max(...shown.shared.map((each) => each.contribution), 1e-9);
  const rows = shown.shared.map((each) => el("tr", { "data-token": each.token },
    el("th", { scope: "row" }, each.token, each.in_text ? null : el("small", {}, " implied")),
    el("td", { class: "number" }, fixed(each.contribution)),
    el("td", { class: `bar ${kind(each.is_literal)}${each.in_text ? "" : " implied"}` },
      el("span", { style: `width: ${(100 * each.contribution) / largest}%` }))));
  return el("table", { class: "contributions" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "token"),
      el("th", { scope: "col", class: "number" }, "adds"), el("th", {}))),
    el("tbody", {}, ...rows),
    el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "sum"),
      el("td", { class: "number", id: "sum" }, fixed(shown.score)), el("td", {}))));
}

function otherTokens(heading, tokens, withButtons) {
  const entries = Object.entries(tokens).sort(([, a], [, b]) => b - a).slice(0, 20); // numbers come first in objects
  if (!entries.length) return null;
  return el("div", {}, el("h3", {}, heading), el("ul", { class: "tokens" }, ...entries.map(([token, weight]) =>
    el("li", { class: "plain" }, el("span", { class: "name" }, token, el("span", { class: "weight" }, fixed(weight))),
      withButtons && isServed ? el("button", {
        type: "button", title: "Ask for it, too", "aria-label": `Ask for ${token}, too`, onclick: () => edit(token, 2),
      }, "+") : null))));
}

function showDocument() {
  const shown = documentOf(state.doc);
  $("document").hidden = !shown;
  if (!shown) return;
  const isLiteral = Object.fromEntries(shown.shared.map((each) => [each.token, each.is_literal]));
  const text = shown.text.map(([piece, token]) =>
    token === null ? piece : el("mark", { class: kind(isLiteral[token]), title: token }, piece));
  const parts = Object.entries(shown.parts).map(([name, { score, rank }]) =>
    `${fixed(score)} ${name} (number ${rank})`);
  const share = shown.dense_share;
  $("document").replaceChildren(
    el("h2", { id: "document-heading" }, shown.id),
    el("p", { class: "sentence" }, `${shown.sentence[0].toUpperCase()}${shown.sentence.slice(1)}.`,
      shown.implied.length ? ` Not in the text: ${shown.implied.join(", ")}.` : null),
    el("div", { class: "columns" },
      el("div", {}, el("p", { class: "text" }, ...text)),
      el("div", {},
        shown.shared.length ? barTable(shown) : null,
        parts.length ? el("p", { class: "parts" }, `Hybrid score: ${parts.join(" + ")}.`) : null,
        share === null ? null : el("p", { class: "share" },
          `The shared tokens account for ${fixed(100 * share, 0)} % of the similarity of the dense vectors.`),
        otherTokens("Only in the question", shown.missing, false),
        otherTokens("Only in the document", shown.unasked, true))));
}

// ---- beginning

$("system").addEventListener("change", () => {
  state.system = $("system").value;
  for (const column of document.querySelectorAll("#rankings > div")) {
    column.classList.toggle("shown", column.dataset.system === state.system);
  }
  writeLink();
});
window.addEventListener("resize", drawLinks);

if (isServed) {
  $("ask").hidden = false;
  $("why-not").hidden = false;
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const filter = readFilter($("field").value, $("operator").value, $("value").value);
    Object.assign(state, { q: $("question").value, edits: {}, filter, doc: null });
    search();
  });
  $("ask-why").addEventListener("submit", askWhy);
  const follow = () => {
    readLink();
    $("question").value = state.q;
    showFilter();
    search();
  };
  window.addEventListener("hashchange", follow);
  follow();
  offerFilter();
} else {
  $("question-shown").hidden = false;
  $("question-shown").textContent = given.question;
  show(given);
}
