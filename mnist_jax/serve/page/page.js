// The page: what is drawn or opened goes to the chosen model, and its answer is shown.

import { Field } from "./field.js";
import { holdsSeveral } from "./picture.js";
import { IMAGE_PX, imageOfInk, inTheMiddle, modelInput, NoInkError } from "./preprocess.js";
import { inPlanes } from "./resample.js";
import * as scorer from "./scorer.js";

const get = (id) => document.getElementById(id);
const CHAMPION = ""; // the version that the server chooses
const INK = "ink"; // what is drawn, or stands out from paper; other models take pictures as they are
const FEW = 10; // classes whose scores are all shown
const BEST = 5; // of more, until all are asked for
const WORDS = {
  drawing: {
    shown: "You draw",
    answered: "and reads",
    invitation: "Draw a digit here",
    empty: "Nothing to read yet: draw a digit, or open a picture.",
    hint: "A picture can also be pasted or dropped on the field. One digit at a time.",
    seen: "few pixels, white on black",
    field: "Drawing field",
  },
  pictures: {
    shown: "You show",
    answered: "and says",
    invitation: "Open a picture, or paste or drop it here",
    empty: "Nothing to see yet: open a picture.",
    hint: "A picture can also be pasted or dropped on the page. It is prepared as in training.",
    seen: "your picture, in the model's pixels",
    field: "Your picture",
  },
};

let models = {};
let labels = []; // of the chosen version's classes; none until it is ready
let [channels, side] = [1, IMAGE_PX]; // of the images it takes
let preparation = INK; // how a picture becomes one
let rows = []; // of the table of scores, in the order of the labels
let answer = null; // what the last scores said, in words
let reached = []; // what the last reading came to, as it stands in the answer's place
let isBehind = false;
let isReading = false;
let retry = null; // what failed last, to be tried again

const field = new Field(get("field"), () => read());

/** Reads what is on the field; of changes that come while a model is at work, the last one counts. */
async function read() {
  if (labels.length) say(""); // else what is said is why no model is there, and how to try again
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
    image = imageOnField();
  } catch (error) {
    showSeen(new Uint8Array(side * side * channels));
    if (!(error instanceof NoInkError)) throw error;
    if (labels.length && !field.isEmpty) throw wrongInput("No ink stands out in this picture.");
    return showScores(null);
  }
  showSeen(image);
  const asked = labels;
  if (!asked.length) return showScores(null); // no model is there yet
  const name = get("model").value;
  const input = modelInput(inPlanes(image, channels));
  const sizes = [channels, side, side];
  const begin = performance.now();
  const { scores, version } = await scorer.score(name, get("version").value, input, sizes);
  const latency = performance.now() - begin;
  if (field.isEmpty || asked !== labels) return; // cleared, or another model chosen, meanwhile
  if (get("version").value === CHAMPION && version !== models[name].champion) {
    models[name].champion = version; // it was promoted since
    offerVersions(models[name]);
  }
  get("latency").textContent = `${name}, version ${version}: ${latency.toFixed(1)} ms ${scorer.MEASURED}`;
  showScores(scores);
  if (field.isDrawing || isBehind) return;
  if (preparation === INK && labels.every((label) => /^[0-9]$/.test(label)) && holdsSeveral(field.ink)) {
    showAnswer("one digit at a time");
    say("This looks like several digits. Draw or show one digit at a time.", true);
  } else {
    say(answer);
  }
}

/** Returns what is drawn or shown as the model sees it: levels [side, side, channels]. */
function imageOnField() {
  if (preparation === INK) return inTheMiddle(imageOfInk(field.ink), side);
  if (field.isEmpty) throw new NoInkError();
  return field.imageOfPicture(side, channels, preparation);
}

function wrongInput(message) {
  return Object.assign(new Error(message), { isInput: true });
}

/** Says what is wrong, and offers to try again where that can help. */
function fail(error, action = null) {
  showAnswer(action ? "no answer" : "nothing to read");
  say(error.message, true, action);
}

/** Shows in the answer's place what a reading came to: a class and which else it may be, or words. */
function showAnswer(...parts) {
  reached = parts;
  showState(...parts);
}

/** Shows something there for a while. */
function showState(text, style = "none", second = "") {
  get("answer").textContent = text;
  get("answer").className = style;
  get("second").textContent = second;
}

function showSeen(image) {
  const canvas = get("seen");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    const color = channels === 3 ? image.subarray(3 * i, 3 * i + 3) : Array(3).fill(image[i]);
    pixels.data.set([...color, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
}

/** Shows one score a class, or none of them. */
function showScores(scores) {
  const order = scores ? rows.map((_, i) => i).sort((a, b) => scores[b] - scores[a]) : [];
  const [first, second] = order;
  if (rows.length > FEW) {
    get("scores").tBodies[0].replaceChildren(...(scores ? order.map((i) => rows[i]) : rows));
  }
  rows.forEach((row, i) => {
    row.classList.toggle("first", i === first);
    row.querySelector("i").style.transform = `scaleX(${scores ? scores[i] : 0})`;
    row.cells[2].textContent = scores ? scores[i].toFixed(3) : "";
    row.cells[2].title = scores ? scores[i] : "";
  });
  const isClose = scores?.[second] >= 0.1;
  if (scores) showAnswer(labels[first], sizeOf(labels[first]), isClose ? `or ${labels[second]}` : "");
  else showAnswer(labels.length ? "nothing yet" : retry ? "no answer" : "loading");
  const told = (i) => `${labels[i]}, score ${scores[i].toFixed(3)}`;
  answer = scores && `${told(first)}${isClose ? `; or ${told(second)}` : ""}`;
}

/** Returns the style in which a class's name fills the answer's square. */
function sizeOf(label) {
  const length = [...label].length;
  return length <= 1 ? "" : length <= 12 ? "word" : "word long";
}

/** Says something on the page, and to those who listen to it, and offers to do again what failed. */
function say(text, isWrong = false, action = null) {
  get("said").classList.toggle("wrong", isWrong);
  retry = action;
  get("retry").hidden = !action;
  get("said").textContent = "";
  requestAnimationFrame(() => (get("said").textContent = text)); // a repeated text is heard again
}

function sayAnswer() {
  if (retry) retry();
  else if (field.isEmpty) say(words().empty, true);
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
  say("");
  get("latency").textContent = "loading the model";
  const chosen = [get("model").value, get("version").value];
  const isChosen = () => chosen[0] === get("model").value && chosen[1] === get("version").value;
  let found;
  try {
    found = await scorer.describe(...chosen, (...sizes) => isChosen() && showProgress(...sizes));
  } catch (error) {
    if (isChosen()) throw error;
  } finally {
    if (isChosen()) get("latency").textContent = "";
  }
  if (!isChosen()) return;
  ({ labels, side, channels, preparation } = found);
  setKind();
  rows = labels.map((label) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = name.title = label;
    name.dir = "auto";
    const bar = row.insertCell();
    bar.className = "bar";
    bar.append(document.createElement("div"));
    bar.firstChild.append(document.createElement("i"));
    row.prepend(name);
    row.insertCell();
    return row;
  });
  get("scores").tBodies[0].replaceChildren(...rows);
  showAll(rows.length <= FEW);
  showScores(null);
  say("");
  if (!field.isEmpty) read();
}

/** Shows the scores of all classes, or of the best. */
function showAll(isAll) {
  get("scores").style.setProperty("--rows", rows.length);
  get("scores").classList.toggle("many", rows.length > FEW);
  get("scores").classList.toggle("all", isAll);
  get("all").hidden = rows.length <= FEW;
  get("all").textContent = isAll ? `Show the best ${BEST}` : `Show all ${rows.length} classes`;
  get("all").ariaExpanded = isAll;
}

function words() {
  return preparation === INK ? WORDS.drawing : WORDS.pictures;
}

/** Makes the page one for drawing, or one for pictures. */
function setKind() {
  const isForDrawing = preparation === INK;
  if (isForDrawing !== field.isForDrawing) field.clear();
  field.isForDrawing = isForDrawing;
  document.body.classList.toggle("pictures", !isForDrawing);
  for (const part of ["shown", "answered", "invitation", "hint"]) {
    get(part).textContent = words()[part];
  }
  get("seen").ariaLabel = words().seen;
  get("field").ariaLabel = words().field;
  get("undo").hidden = get("keys").hidden = !isForDrawing;
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
  try {
    await field.open(file);
  } catch (error) {
    showState(...reached); // the field is as it was
    say(error.message, true, retry);
  }
}

/** Does something; where it fails, says so, and offers to do it again. */
const orSay = (action) => {
  const run = (event) => action(event).catch((error) => fail(error, () => run(event)));
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
get("field").addEventListener("click", () => field.isForDrawing || get("file").click());
get("all").addEventListener("click", () => showAll(!get("scores").matches(".all")));
get("file").addEventListener("change", orSay(async ({ target }) => {
  const [file] = target.files;
  target.value = ""; // the same file can be opened again
  await open(file);
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
