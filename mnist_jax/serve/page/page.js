// The page: what is drawn or opened goes to the chosen model, and its answer is shown.

import { Field } from "./field.js";
import { holdsSeveral } from "./picture.js";
import { IMAGE_PX, imageOfInk, inTheMiddle, modelInput, NoInkError } from "./preprocess.js";
import * as scorer from "./scorer.js";

const get = (id) => document.getElementById(id);
const CHAMPION = ""; // the version that the server chooses

let models = {};
let labels = []; // of the chosen version's classes; none until it is ready
let side = IMAGE_PX; // of the images it takes
let answer = null; // what the last scores said, in words
let isBehind = false;
let isReading = false;
let retry = null; // what failed last, to be tried again

const field = new Field(get("field"), () => read());

/** Reads what is on the field; of changes that come while a model is at work, the last one counts. */
async function read() {
  say("");
  isBehind = true;
  if (isReading) return;
  isReading = true;
  while (isBehind) {
    await new Promise(requestAnimationFrame);
    isBehind = false;
    try {
      await readOnce();
    } catch (error) {
      showScores(null);
      get("latency").textContent = "";
      fail(error, error.isInput ? null : read);
    }
  }
  isReading = false;
}

async function readOnce() {
  get("undo").disabled = get("clear").disabled = field.isEmpty;
  get("invitation").hidden = !field.isEmpty;
  let image;
  try {
    image = inTheMiddle(imageOfInk(field.ink), side);
  } catch (error) {
    showSeen(new Uint8Array(side * side));
    if (!(error instanceof NoInkError)) throw error;
    if (!field.isEmpty) throw wrongInput("No ink stands out in this picture.");
    return showScores(null);
  }
  showSeen(image);
  const asked = labels;
  if (!asked.length) return; // no model is chosen yet
  const name = get("model").value;
  const input = modelInput(image);
  const begin = performance.now();
  const { scores, version } = await scorer.score(name, get("version").value, input, side);
  const latency = performance.now() - begin;
  if (field.isEmpty || asked !== labels) return; // cleared, or another model chosen, meanwhile
  if (get("version").value === CHAMPION && version !== models[name].champion) {
    models[name].champion = version; // it was promoted since
    offerVersions(models[name]);
  }
  get("latency").textContent = `${name}, version ${version}: ${latency.toFixed(1)} ms ${scorer.MEASURED}`;
  showScores(scores);
  if (field.isDrawing || isBehind) return;
  if (labels.every((label) => /^[0-9]$/.test(label)) && holdsSeveral(field.ink)) {
    showState("one digit at a time");
    say("This looks like several digits. Draw or show one digit at a time.", true);
  } else {
    say(answer);
  }
}

function wrongInput(message) {
  return Object.assign(new Error(message), { isInput: true });
}

/** Says what is wrong, and offers to try again where that can help. */
function fail(error, action = null) {
  showState(action ? "no answer" : "nothing to read");
  say(error.message, true);
  retry = action;
  get("retry").hidden = !action;
}

/** Shows in the answer's place, in words, what is happening. */
function showState(text) {
  get("answer").textContent = text;
  get("answer").className = "none";
  get("second").textContent = "";
}

function showSeen(image) {
  const canvas = get("seen");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = context.createImageData(side, side);
  image.forEach((level, i) => pixels.data.set([level, level, level, 255], 4 * i));
  context.putImageData(pixels, 0, 0);
}

/** Shows one score a class, or none of them. */
function showScores(scores) {
  const rows = [...get("scores").tBodies[0].rows];
  const order = scores ? rows.map((_, i) => i).sort((a, b) => scores[b] - scores[a]) : [];
  const [first, second] = order;
  rows.forEach((row, i) => {
    row.classList.toggle("first", i === first);
    row.querySelector("i").style.transform = `scaleX(${scores ? scores[i] : 0})`;
    row.cells[2].textContent = scores ? scores[i].toFixed(3) : "";
    row.cells[2].title = scores ? scores[i] : "";
  });
  get("answer").textContent = scores ? labels[first] : labels.length ? "nothing yet" : "loading";
  get("answer").className = !scores ? "none" : labels[first].length > 1 ? "word" : "";
  get("second").textContent = scores && scores[second] >= 0.1 ? `or ${labels[second]}` : "";
  const told = (i) => `${labels[i]}, score ${scores[i].toFixed(3)}`;
  answer = scores && `${told(first)}${scores[second] >= 0.1 ? `; or ${told(second)}` : ""}`;
}

/** Says something on the page, and to those who listen to it. */
function say(text, isWrong = false) {
  get("said").classList.toggle("wrong", isWrong);
  retry = null;
  get("retry").hidden = true;
  get("said").textContent = "";
  requestAnimationFrame(() => (get("said").textContent = text)); // a repeated text is heard again
}

function sayAnswer() {
  if (retry) retry();
  else if (field.isEmpty) say("Nothing to read yet: draw a digit, or open a picture.", true);
  else if (answer) say(answer);
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  select.disabled = options.length < 2;
}

async function begin() {
  labels = [];
  say("");
  showScores(null);
  models = await scorer.list();
  const names = Object.keys(models);
  if (!names.length) throw new Error("There is no model that is ready.");
  fill(get("model"), names.map((name) => [name, name]));
  await chooseModel();
}

async function chooseModel() {
  offerVersions(models[get("model").value]);
  await chooseVersion();
}

function offerVersions({ champion, versions }) {
  const others = versions.filter((version) => version !== champion);
  const options = others.map((version) => [version, version]);
  fill(get("version"), champion ? [[CHAMPION, `${champion}, champion`], ...options] : options);
}

async function chooseVersion() {
  labels = [];
  get("latency").textContent = "loading the model";
  const chosen = [get("model").value, get("version").value];
  let found;
  try {
    found = await scorer.describe(...chosen, showProgress);
  } finally {
    get("latency").textContent = "";
  }
  if (chosen[0] !== get("model").value || chosen[1] !== get("version").value) return;
  ({ labels, side } = found);
  const rows = labels.map((label) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = label;
    const bar = row.insertCell();
    bar.className = "bar";
    bar.append(document.createElement("div"));
    bar.firstChild.append(document.createElement("i"));
    row.prepend(name);
    row.insertCell();
    return row;
  });
  get("scores").tBodies[0].replaceChildren(...rows);
  showScores(null);
  if (!field.isEmpty) read();
}

/** Shows how much of a model has come: bytes, of how many if that is known. */
function showProgress(loaded, total) {
  const size = (bytes) => (bytes / 1e6).toFixed(1);
  const of = total ? ` of ${size(total)}` : "";
  get("latency").textContent = `loading the model: ${size(loaded)}${of} MB`;
}

async function open(file) {
  if (!file) return;
  showState("reading the picture");
  await new Promise((resume) => requestAnimationFrame(() => setTimeout(resume))); // it is seen
  try {
    await field.open(file);
  } catch (error) {
    throw wrongInput(error.message);
  }
}

/** Does something; where it fails, says so, and offers to do it again. */
const orSay = (action) => {
  const run = (event) =>
    action(event).catch((error) => fail(error, error.isInput ? null : () => run(event)));
  return run;
};

for (const action of ["undo", "clear"]) {
  get(action).addEventListener("click", () => {
    field[action]();
    if (field.isEmpty) get("field").focus(); // the button goes out of use, and would lose it
  });
}
get("retry").addEventListener("click", () => retry?.());
get("open").addEventListener("click", () => get("file").click());
get("file").addEventListener("change", orSay(async ({ target }) => {
  await open(target.files[0]);
  target.value = ""; // the same file can be opened again
}));
get("model").addEventListener("change", orSay(chooseModel));
get("version").addEventListener("change", orSay(chooseVersion));
get("field").addEventListener("keydown", ({ key }) => key === "Enter" && sayAnswer());
addEventListener("keydown", (event) => {
  if (event.target.matches?.("select")) return;
  if (event.key === "Escape") field.clear();
  if ((event.ctrlKey || event.metaKey) && event.key === "z") field.undo();
});
addEventListener("paste", orSay(({ clipboardData }) => open(clipboardData.files[0])));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", orSay(async (event) => {
  event.preventDefault();
  await open(event.dataTransfer.files[0]);
}));

orSay(begin)();
