// Drawings and pictures to 28x28 pixels as MNIST's were made.
// docs/preprocessing.md is the specification; mnist_jax/serve/preprocess.py is the same in Python.

export const FIELD_PX = 280; // side of the field that is drawn on
export const PEN_RADIUS_PX = 11;
export const IMAGE_PX = 28; // side of what all is fitted into
export const FAINTEST = 32; // grey levels
const BOX_PX = 20;

/** There is nothing to look at. */
export class NoInkError extends Error {}

/** An array of levels from 0 to 255, row by row, empty at first. */
export class Ink {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.levels = new Uint8Array(width * height);
  }
}

/** Returns the levels of an image of 28x28 in the middle of a black one: `side` is even. */
export function inTheMiddle(image, side) {
  const margin = (side - IMAGE_PX) / 2;
  const larger = new Uint8Array(side * side);
  for (let row = 0; row < IMAGE_PX; row++) {
    const line = image.subarray(row * IMAGE_PX, (row + 1) * IMAGE_PX);
    larger.set(line, (row + margin) * side + margin);
  }
  return larger;
}

/** Returns levels as what a model takes: float32, 0 to 1. */
export function modelInput(levels) {
  return Float32Array.from(levels, (level) => level / 255);
}

/** Returns the image, 784 levels, of strokes: lists of points [x, y] on a field of 280x280. */
export function imageOfStrokes(strokes) {
  const ink = new Ink(FIELD_PX, FIELD_PX);
  for (const stroke of strokes) {
    stroke.forEach((point, i) => drawLine(ink, stroke[Math.max(0, i - 1)], point));
  }
  return imageOfInk(ink);
}

/** Draws a line with a round, anti-aliased pen. */
export function drawLine(ink, [ax, ay], [bx, by]) {
  const [vx, vy] = [bx - ax, by - ay];
  const length = vx * vx + vy * vy;
  const reach = PEN_RADIUS_PX + 1;
  const first = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - reach));
  const last = (a, b, size) => Math.min(size - 1, Math.ceil(Math.max(a, b) + reach));
  for (let row = first(ay, by); row <= last(ay, by, ink.height); row++) {
    for (let column = first(ax, bx); column <= last(ax, bx, ink.width); column++) {
      const [x, y] = [column + 0.5, row + 0.5];
      const t = length ? clamp(((x - ax) * vx + (y - ay) * vy) / length) : 0;
      const [dx, dy] = [x - (ax + t * vx), y - (ay + t * vy)];
      const coverage = clamp(PEN_RADIUS_PX + 0.5 - Math.sqrt(dx * dx + dy * dy));
      const index = row * ink.width + column;
      ink.levels[index] = Math.max(ink.levels[index], Math.floor(255 * coverage + 0.5));
    }
  }
}

/** Fits ink into 20x20 pixels and puts its centre of mass into the middle of 28x28. */
export function imageOfInk(ink) {
  if (range(ink.levels)[1] < FAINTEST) throw new NoInkError("there is no ink to look at");
  const box = boxOf(ink);
  const longer = Math.max(box.width, box.height);
  const fit = (side) => Math.max(1, Math.floor((2 * BOX_PX * side + longer) / (2 * longer)));
  const [width, height] = [fit(box.width), fit(box.height)];
  const sums = areaSums(ink, box, width, height);
  const [, most] = range(sums);
  const fitted = sums.map((sum) => Math.floor((510 * sum + most) / (2 * most)));
  const byRow = new Float64Array(height);
  const byColumn = new Float64Array(width);
  fitted.forEach((level, i) => {
    byRow[Math.floor(i / width)] += level;
    byColumn[i % width] += level;
  });
  const [top, left] = [offset(byRow), offset(byColumn)];
  const image = new Uint8Array(IMAGE_PX * IMAGE_PX);
  fitted.forEach((level, i) => {
    image[(top + Math.floor(i / width)) * IMAGE_PX + left + (i % width)] = level;
  });
  return image;
}

/** Returns the smallest box that holds all ink. */
export function boxOf(ink) {
  let [top, bottom, left, right] = [ink.height, -1, ink.width, -1];
  ink.levels.forEach((level, i) => {
    if (!level) return;
    const [row, column] = [Math.floor(i / ink.width), i % ink.width];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
    [left, right] = [Math.min(left, column), Math.max(right, column)];
  });
  return { top, left, width: right - left + 1, height: bottom - top + 1 };
}

/** Returns width x height area-weighted sums of a box: whole numbers, exact in any order. */
function areaSums(ink, box, width, height) {
  const sums = new Float64Array(width * height);
  const columns = shares(box.width, width);
  for (const [row, y, share] of shares(box.height, height)) {
    const start = (box.top + row) * ink.width + box.left;
    for (const [column, x, part] of columns) {
      sums[y * width + x] += share * part * ink.levels[start + column];
    }
  }
  return sums;
}

/** Returns [source pixel, target pixel, share] wherever two pixels overlap. */
function shares(source, target) {
  const found = [];
  for (let i = 0; i < source; i++) {
    for (let j = Math.floor((i * target) / source); j * source < (i + 1) * target; j++) {
      const end = Math.min((i + 1) * target, (j + 1) * source);
      found.push([i, j, end - Math.max(i * target, j * source)]);
    }
  }
  return found;
}

/** Returns where a box begins whose centre of mass shall lie in the image's middle. */
function offset(levels) {
  const mass = levels.reduce((sum, level) => sum + level, 0);
  const moment = levels.reduce((sum, level, i) => sum + i * level, 0);
  const begin = -Math.floor((2 * moment - 27 * mass) / (2 * mass));
  return Math.min(Math.max(0, begin), IMAGE_PX - levels.length);
}

/** Returns the least and the greatest level. */
export function range(levels) {
  let [low, high] = [Infinity, 0];
  for (const level of levels) {
    if (level < low) low = level;
    if (level > high) high = level;
  }
  return [low, high];
}

function clamp(value) {
  return Math.min(1, Math.max(0, value));
}
