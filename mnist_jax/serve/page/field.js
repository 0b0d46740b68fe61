// The field that is drawn on, with a mouse, a finger, a pen, or the keyboard, or that shows a picture.

import { Blocks, inkOfBlocks } from "./picture.js";
import { imageOfData } from "./resample.js";
import { drawLine, FIELD_PX, Ink, PEN_RADIUS_PX } from "./preprocess.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP_PX = 10;
const SMALL_STEP_PX = 3;
const MOST_PIXELS = 5e7; // of a picture, as in Python
const STRIP_PIXELS = 2e6; // of a picture are read at once: a phone can hold that beside the picture

export class Field {
  #canvas;
  #changed;
  #strokes = [];
  #ink = new Ink(FIELD_PX, FIELD_PX);
  #picture = null;
  #pen = null; // where the keyboard's is, once it was used
  #held = new Set();
  #turn = 0; // goes up with every change, after which a picture that was being read comes too late
  isDrawing = false;
  isForDrawing = true; // else it shows pictures alone

  /** Calls `changed` after every change; what is shown is up to the canvas's color. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => event.isPrimary && this.#lift());
    }
    canvas.addEventListener("keydown", (event) => this.#press(event));
    canvas.addEventListener("keyup", (event) => this.#held.delete(event.key));
    canvas.addEventListener("blur", () => this.#leave());
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  get isEmpty() {
    return !this.#strokes.length && !this.#picture;
  }

  /** Returns the ink of what is drawn, or of the picture. */
  get ink() {
    return this.#picture?.ink ?? this.#ink;
  }

  /** Returns the picture as a model of the user's own sees it: levels [side, side, channels]. */
  imageOfPicture(side, channels, fit) {
    return imageOfData(dataOf(this.#picture.bitmap), side, channels, fit);
  }

  clear() {
    this.#strokes = [];
    this.#picture = null;
    this.#redraw();
  }

  /** Takes back the last stroke, or the picture. */
  undo() {
    this.#picture = null;
    this.#strokes.pop();
    this.#redraw();
  }

  /** Puts a picture in place of what is drawn, unless the field changes while it is read. */
  async open(file) {
    const turn = ++this.#turn;
    await new Promise((resume) => requestAnimationFrame(() => setTimeout(resume))); // a wait is seen
    let picture;
    try {
      picture = await this.#read(file);
    } catch (error) {
      if (turn === this.#turn) throw error;
    }
    if (turn !== this.#turn) return;
    this.#strokes = [];
    this.#picture = picture;
    this.#redraw();
  }

  async #read(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    } catch {
      throw new Error("This browser cannot open that file as a picture.");
    }
    if (!this.isForDrawing && bitmap.width * bitmap.height > MOST_PIXELS) {
      throw new Error(`This picture has more than ${MOST_PIXELS / 1e6} million pixels.`);
    }
    return { bitmap, ink: this.isForDrawing ? inkOfBlocks(await blocksOf(bitmap)) : null };
  }

  #begin(event) {
    if (!this.isForDrawing || !event.isPrimary || event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pen = null;
    this.#start(this.#place(event));
  }

  #go(event) {
    if (!this.isDrawing || !event.isPrimary || this.#pen) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const place of passed.length ? passed : [event]) this.#extend(this.#place(place));
  }

  #start(point) {
    this.#turn++;
    if (this.#picture) {
      this.#picture = null;
      this.#redraw();
    }
    this.isDrawing = true;
    this.#strokes.push([]);
    this.#extend(point);
  }

  #extend(point) {
    const stroke = this.#strokes.at(-1);
    drawLine(this.#ink, stroke.at(-1) ?? point, point);
    stroke.push(point);
    this.#paint();
    this.#changed();
  }

  #lift() {
    if (!this.isDrawing) return;
    this.isDrawing = false;
    this.#paint();
    this.#changed();
  }

  #press(event) {
    if (!this.isForDrawing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in STEPS) {
      this.#held.add(event.key);
      const size = event.shiftKey ? SMALL_STEP_PX : STEP_PX;
      const [x, y] = this.#pen ?? [FIELD_PX / 2, FIELD_PX / 2];
      const steps = [...this.#held].map((key) => STEPS[key]); // two keys: a diagonal
      const move = (from, axis) =>
        Math.min(FIELD_PX, Math.max(0, steps.reduce((sum, step) => sum + size * step[axis], from)));
      this.#pen = [move(x, 0), move(y, 1)];
      if (this.isDrawing) this.#extend(this.#pen);
    } else if (event.key === " ") {
      this.#pen ??= [FIELD_PX / 2, FIELD_PX / 2];
      if (event.repeat) return event.preventDefault(); // held down, it is pressed once
      if (this.isDrawing) this.#lift();
      else this.#start(this.#pen);
    } else {
      return;
    }
    event.preventDefault();
    this.#paint();
  }

  #leave() {
    this.#held.clear();
    this.#pen = null;
    this.#lift();
    this.#paint();
  }

  /** Returns where a pointer is, in the field's own units. */
  #place({ clientX, clientY }) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [((clientX - left) * FIELD_PX) / width, ((clientY - top) * FIELD_PX) / height];
  }

  #redraw() {
    this.#turn++;
    this.isDrawing = false;
    this.#ink = new Ink(FIELD_PX, FIELD_PX);
    for (const stroke of this.#strokes) {
      stroke.forEach((point, i) => drawLine(this.#ink, stroke[Math.max(0, i - 1)], point));
    }
    this.#paint();
    this.#changed();
  }

  /** Shows people what is there; the browser's own lines are good enough for that. */
  #paint() {
    const canvas = this.#canvas;
    canvas.width = canvas.height = Math.round(canvas.clientWidth * devicePixelRatio);
    const context = canvas.getContext("2d");
    const scale = canvas.width / FIELD_PX;
    context.scale(scale, scale);
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = 2 * PEN_RADIUS_PX;
    context.strokeStyle = context.fillStyle = getComputedStyle(canvas).color;
    if (this.#picture) {
      const { width, height } = this.#picture.bitmap;
      const fit = FIELD_PX / Math.max(width, height);
      const [w, h] = [width * fit, height * fit];
      context.drawImage(this.#picture.bitmap, (FIELD_PX - w) / 2, (FIELD_PX - h) / 2, w, h);
    }
    for (const stroke of this.#strokes) {
      context.beginPath();
      for (const [x, y] of [stroke[0], ...stroke]) context.lineTo(x, y);
      context.stroke();
    }
    if (this.#pen) {
      context.lineWidth = 2;
      context.beginPath();
      context.arc(...this.#pen, PEN_RADIUS_PX, 0, 2 * Math.PI);
      if (this.isDrawing) context.fill();
      context.stroke();
    }
  }
}

/** Reads a bitmap in strips, one to one: the browser's own resampling would not be ours. */
async function blocksOf(bitmap) {
  const { width, height } = bitmap;
  const blocks = new Blocks(width, height);
  const rows = Math.max(1, Math.floor(STRIP_PIXELS / width));
  const canvas = new OffscreenCanvas(width, Math.min(rows, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let first = 0; first < height; first += rows) {
    const count = Math.min(rows, height - first);
    context.clearRect(0, 0, width, count);
    context.drawImage(bitmap, 0, first, width, count, 0, 0, width, count);
    blocks.add(context.getImageData(0, 0, width, count).data, first);
    await new Promise((resume) => setTimeout(resume)); // so that the page stays alive
  }
  return blocks;
}

/** Reads a bitmap whole, one to one. */
function dataOf(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height);
}
