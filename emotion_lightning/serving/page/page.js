// The page of `serve`. Texts and labels come from outside: they reach the page as text only, never as HTML.
"use strict";

const MOST_ROWS = 200;
const PIECE = 16; // texts in one request, so that the progress is seen
const MOST_BYTES = 4_000_000; // of a file that are read
const NAMES = ["text", "texts", "tweet", "sentence", "comment", "content", "message", "body", "review", "post"];

const at = (id) => document.getElementById(id);
let info = null;
let answered = []; // of the last question: {text, prediction}
let number = 0; // of the last question; answers to earlier ones are dropped

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function say(text) {
  at("status").textContent = text;
}

function complain(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
}

async function fetched(path, options = {}) {
  const headers = { ...options.headers };
  if (at("token").value) headers.Authorization = `Bearer ${at("token").value}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  let content = null;
  try {
    content = await response.json();
  } catch {
    throw new Error(`The server answered with something else (${response.status}).`);
  }
  if (response.ok) return content;
  if (response.status === 401) {
    // Only once: an answer that comes late must not take the focus from what is being typed.
    if (at("token-choice").hidden) {
      at("token-choice").hidden = false;
      at("token").focus();
    }
  }
  throw new Error(content.error || `The server refused this (${response.status}).`);
}

async function learn() {
  if (info) return;
  info = await fetched("info");
  at("model").textContent = info.model;
  document.title = `Emotions in texts: ${info.model}`;
  at("explain-choice").hidden = !info.explains;
  const cuts = info.thresholds[info.protocol];
  for (const label of info.labels) {
    const row = made("li");
    row.append(made("bdi", "", label), ` ${percent(cuts[label])}`);
    at("labels").append(row);
  }
  const read = info.max_tokens === null ? "" : `Of a text, the first ${info.max_tokens} tokens are read.`;
  const limits = [
    read,
    `A text has ${info.limits.letters.toLocaleString("en")} characters at most, a request of a program ` +
      `${info.limits.texts} texts.`,
    info.calibrated ? "Its probabilities are calibrated." : "Its probabilities are not calibrated.",
  ];
  for (const limit of limits.filter(Boolean)) at("limits").append(made("li", "", limit));
  for (const [name, version] of Object.entries(info.versions)) at("versions").append(made("li", "", `${name} ${version}`));
  at("card").textContent = info.card || "This classifier has none.";
}

function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)} %`;
}

// Bars of one text, and its words, coloured for the emotion that one points at.
function shown(text, prediction) {
  const part = made("div");
  const cuts = info.thresholds[info.protocol];
  const words = prediction.words || [];
  const told = new Set(words.flatMap((word) => Object.keys(word.scores)));
  const said = made("p", "said");
  said.dir = "auto";
  const spans = [];
  // Places count characters, as Python does; in JavaScript an emoji has two.
  const letters = words.length ? Array.from(text) : [];
  let end = 0;
  for (const word of words) {
    said.append(letters.slice(end, word.start).join(""));
    const span = made("span", "", letters.slice(word.start, word.end).join(""));
    spans.push(span);
    said.append(span);
    end = word.end;
  }
  said.append(words.length ? letters.slice(end).join("") : text);
  said.tabIndex = 0; // it scrolls if it is long
  said.setAttribute("role", "group");
  said.setAttribute("aria-label", "Text");
  part.append(said);
  // Below the bars: above them it would move them away from who points at one, as it grows and shrinks.
  const spoke = made("p", "spoke");

  const list = made("ul", "bars");
  const buttons = new Map();
  let chosen = null;
  function colour(label) {
    const most = Math.max(1e-9, ...words.map((word) => Math.abs(word.scores[label] ?? 0)));
    words.forEach((word, i) => {
      const score = word.scores[label] ?? 0;
      const share = Math.abs(score) / most;
      spans[i].className = share < 0.1 ? "" : score > 0 ? "for" : "against";
      spans[i].style.setProperty("--share", `${Math.round(100 * share)}%`);
    });
    const by = words.map((word) => [word.word, word.scores[label] ?? 0]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    const tell = (sign) => by.filter(([, score]) => score * sign > 0).slice(0, 5)
      .map(([word, score]) => `${word} (${score > 0 ? "+" : "−"}${Math.abs(score).toFixed(2)})`).join(", ") || "none";
    spoke.replaceChildren("For ", made("bdi", "", label), `: ${tell(1)}. Against it: ${tell(-1)}.`);
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", String(name === label));
  }

  const order = [...info.labels].sort((a, b) => prediction.probabilities[b] - prediction.probabilities[a]);
  for (const label of order) {
    const share = prediction.probabilities[label];
    const found = prediction.labels.includes(label);
    const row = made("li");
    const bar = made(told.has(label) ? "button" : "div", found ? "bar found" : "bar");
    const track = made("span", "track");
    track.setAttribute("aria-hidden", "true");
    const fill = made("span", "fill");
    fill.style.setProperty("--share", percent(share).replace(" ", ""));
    const cut = made("span", "cut");
    cut.style.setProperty("--cut", percent(cuts[label]).replace(" ", ""));
    track.append(fill, cut);
    const value = made("span", "number", percent(share));
    const heard = made("span", "heard", `, ${found ? "found" : "not found"}, threshold ${percent(cuts[label])}`);
    value.append(heard);
    bar.append(made("span", "name", label), track, value);
    if (told.has(label)) {
      bar.type = "button";
      bar.setAttribute("aria-pressed", "false");
      buttons.set(label, bar);
      bar.addEventListener("mouseenter", () => colour(label));
      bar.addEventListener("mouseleave", () => colour(chosen));
      bar.addEventListener("focus", () => colour(label));
      bar.addEventListener("blur", () => colour(chosen));
      bar.addEventListener("click", () => { chosen = label; colour(label); });
    }
    row.append(bar);
    list.append(row);
  }
  part.append(list);
  if (buttons.size) part.append(spoke);
  part.append(made("p", "key", "✓ and bold: found. The upright line is the threshold."));
  if (buttons.size) {
    chosen = buttons.keys().next().value;
    colour(chosen);
    part.append(made("p", "key", "Point at a label to see its words. Underlined: for it; dotted: against it."));
  }
  return part;
}

function show() {
  const results = at("results");
  results.replaceChildren();
  at("answers-title").textContent = answered.length === 1 ? "Answer" : `Answers to ${answered.length} texts`;
  if (answered.length === 1) {
    results.append(shown(answered[0].text, answered[0].prediction));
  } else {
    for (const { text, prediction } of answered) {
      const one = made("details");
      const summary = made("summary");
      const short = Array.from(text).slice(0, 140);
      summary.append(made("span", "short", short.join("") + (short.length < Array.from(text).length ? "…" : "")));
      const chips = made("span", "chips");
      for (const label of prediction.labels) chips.append(made("bdi", "", label), " ");
      if (!prediction.labels.length) chips.append("no emotion found");
      summary.append(chips);
      one.append(summary);
      one.addEventListener("toggle", () => {
        if (one.open && one.children.length === 1) one.append(shown(text, prediction));
      });
      results.append(one);
    }
  }
  at("answers").hidden = false;
}

async function ask(texts, note = "") {
  const own = ++number;
  complain("");
  say(note || "Labelling …");
  at("ask").disabled = true;
  at("answers").hidden = true;
  const found = [];
  try {
    await learn();
    const explain = info.explains && at("explain").checked;
    const size = Math.min(PIECE, explain ? info.limits.explained_texts : info.limits.texts);
    for (let start = 0; start < texts.length; start += size) {
      const piece = texts.slice(start, start + size);
      const body = JSON.stringify({ texts: piece, explain });
      const answer = await fetched("predict", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      if (own !== number) return;
      answer.predictions.forEach((prediction, i) => found.push({ text: piece[i], prediction }));
      if (texts.length > size) say(`${note} Labelled ${found.length} of ${texts.length}.`.trim());
    }
    say(`${note} Done: ${found.length === 1 ? "1 text" : `${found.length} texts`}.`.trim());
  } catch (error) {
    if (own !== number) return;
    const place = texts.length > 1 ? `After text ${found.length}: ` : "";
    say(found.length ? `${found.length} of ${texts.length} texts were labelled.` : "");
    complain(place + error.message);
  } finally {
    if (own === number) {
      at("ask").disabled = false;
      answered = found;
      if (found.length) {
        show();
        at("answers-title").focus({ preventScroll: true });
        at("answers-title").scrollIntoView({ block: "nearest" });
      }
    }
  }
}

function typed() {
  const text = at("text").value;
  const texts = at("lines").checked ? text.split(/\r?\n/) : [text];
  return texts.filter((one) => one.trim());
}

function askTyped() {
  const texts = typed();
  if (!texts.length) {
    complain("There is no text yet.");
    at("text").focus();
    return;
  }
  const left = texts.length - MOST_ROWS;
  ask(texts.slice(0, MOST_ROWS), left > 0 ? `The first ${MOST_ROWS} of ${texts.length} lines.` : "");
}

// Rows of a csv or tsv file (RFC 4180).
function cells(content, separator) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let i = 0; i < content.length; i++) {
    const letter = content[i];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (content[i + 1] === '"') { cell += '"'; i++; }
      else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === separator) { row.push(cell); cell = ""; }
    else if (letter === "\n") { row.push(cell); rows.push(row); row = []; cell = ""; }
    else if (letter !== "\r") cell += letter;
  }
  if (cell || row.length) { row.push(cell); rows.push(row); }
  return rows.filter((one) => one.some((part) => part.trim()));
}

// Texts of a table, and the name of the column they are from.
function column(rows) {
  const header = rows[0].map((name) => name.trim().toLowerCase());
  let place = NAMES.map((name) => header.indexOf(name)).find((found) => found >= 0);
  if (place !== undefined) return { texts: rows.slice(1).map((row) => row[place] ?? ""), name: rows[0][place] };
  if (rows[0].length === 1) return { texts: rows.map((row) => row[0]), name: null };
  const length = (i) => rows.slice(1).reduce((sum, row) => sum + (row[i] ?? "").length, 0);
  place = rows[0].map((_, i) => i).reduce((best, i) => (length(i) > length(best) ? i : best), 0);
  return { texts: rows.slice(1).map((row) => row[place] ?? ""), name: rows[0][place] };
}

function readTexts(name, content) {
  const lines = () => content.split(/\r?\n/).filter((line) => line.trim());
  if (/\.jsonl?$/i.test(name)) {
    const records = content.trim().startsWith("[") ? JSON.parse(content) : lines().map((line) => JSON.parse(line));
    const key = NAMES.find((one) => records.some((record) => typeof record?.[one] === "string"));
    const texts = records.map((record) => (typeof record === "string" ? record : record?.[key]));
    return { texts: texts.filter((text) => typeof text === "string"), name: key ?? null };
  }
  if (!/\.[ct]sv$/i.test(name)) return { texts: lines(), name: null };
  const first = content.slice(0, content.indexOf("\n") + 1 || content.length);
  const separator = ["\t", ";", ","].reduce((best, one) => (first.split(one).length > first.split(best).length ? one : best), ",");
  const rows = cells(content, separator);
  return rows.length ? column(rows) : { texts: [], name: null };
}

async function readFile(file) {
  if (!file) return;
  complain("");
  try {
    let content = new TextDecoder("utf-8", { fatal: true }).decode(
      new Uint8Array(await file.slice(0, MOST_BYTES).arrayBuffer()), { stream: file.size > MOST_BYTES });
    if (file.size > MOST_BYTES) content = content.slice(0, content.lastIndexOf("\n") + 1); // the last row may be cut
    const found = readTexts(file.name, content);
    const texts = found.texts.filter((text) => text.trim());
    if (!texts.length) throw new Error("no texts");
    const of = found.name ? `, column ${found.name}` : "";
    const first = texts.length > MOST_ROWS ? `The first ${MOST_ROWS} texts of ` : "";
    ask(texts.slice(0, MOST_ROWS), `${first}${file.name}${of}.`);
  } catch (error) {
    const why = error instanceof TypeError ? "it is not in UTF-8" : error instanceof SyntaxError ? "it is no JSON" : error.message;
    complain(`${file.name} cannot be read: ${why}. Give csv, tsv, jsonl or txt with a text in each row.`);
  }
}

// Cells that a spreadsheet would run as a formula begin with a quote.
function csvCell(value) {
  const text = typeof value === "number" ? String(value) : /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download() {
  const header = ["text", ...info.labels, ...info.labels.map((label) => `p_${label}`)];
  const rows = answered.map(({ text, prediction }) => [
    text,
    ...info.labels.map((label) => (prediction.labels.includes(label) ? 1 : 0)),
    ...info.labels.map((label) => prediction.probabilities[label]),
  ]);
  const content = [header, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
  const link = made("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv" }));
  link.download = "emotions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function link() {
  location.hash = `text=${encodeURIComponent(at("text").value)}`;
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link holds the text now, and is copied.");
  } catch {
    say("The link with the text is in the address bar.");
  }
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); askTyped(); });
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); askTyped(); }
});
at("text").addEventListener("paste", (event) => {
  // A list that is pasted into the empty box: several short lines.
  const lines = (event.clipboardData?.getData("text/plain") ?? "").trim().split(/\r?\n/);
  if (!at("text").value && lines.length > 2 && lines.every((line) => line.trim() && line.length < 400)) at("lines").checked = true;
});
at("open").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => { readFile(at("file").files[0]); at("file").value = ""; });
at("link").addEventListener("click", link);
at("download").addEventListener("click", download);
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  readFile(event.dataTransfer?.files[0]);
});
at("token").addEventListener("change", () => learn().then(() => complain(""), (error) => complain(error.message)));

learn().catch((error) => complain(error.message)).then(() => {
  if (!location.hash.startsWith("#text=")) return;
  try {
    at("text").value = decodeURIComponent(location.hash.slice(6));
  } catch {
    return; // a link that was cut
  }
  if (info && at("text").value.trim()) askTyped();
});
