// The ink of a picture: what stands out from its paper, dark on light or light on dark.
// docs/preprocessing.md is the specification; mnist_jax/serve/preprocess.py is the same in Python.

import { boxOf, FAINTEST, imageOfInk, Ink, range } from "./preprocess.js";

const LONGEST_PX = 400; // of a picture, after reduction

/** Returns the image, 784 levels, of a picture: width, height and RGBA data, as ImageData has. */
export function imageOfPicture(picture) {
  return imageOfInk(inkOfPicture(picture));
}

/** Returns what stands out from a picture's paper, without frames and lines at its edge. */
export function inkOfPicture({ width, height, data }) {
  const blocks = new Blocks(width, height);
  blocks.add(data, 0);
  return inkOfBlocks(blocks);
}

/** Sums over blocks of pixels, of which there are at most 400 a side; rows can come one by one. */
export class Blocks {
  constructor(width, height) {
    this.block = Math.ceil(Math.max(width, height) / LONGEST_PX);
    this.pixels = width;
    this.width = Math.floor(width / this.block);
    this.height = Math.floor(height / this.block);
    const count = this.width * this.height;
    if (!count) throw new Error(`a picture of ${width}x${height} is too narrow; crop it`);
    this.alphas = new Float64Array(count);
    this.colors = new Float64Array(count); // thousandths of grey, times alpha
  }

  /** Adds whole rows of RGBA data, of which the first is given. */
  add(data, first) {
    const { block, pixels, width, height } = this;
    for (let i = 0, row = first; i < data.length && row < height * block; row++, i += 4 * pixels) {
      for (let column = 0; column < width * block; column++) {
        const k = i + 4 * column;
        const place = Math.floor(row / block) * width + Math.floor(column / block);
        this.alphas[place] += data[k + 3];
        this.colors[place] += (299 * data[k] + 587 * data[k + 1] + 114 * data[k + 2]) * data[k + 3];
      }
    }
  }
}

/** Returns the ink of a picture of which every row was added. */
export function inkOfBlocks(blocks) {
  let { width, height, levels } = greyOf(blocks);
  const depth = Math.ceil(Math.min(width, height) / 10);
  const margins = levels.map((_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return Math.min(row, column, height - 1 - row, width - 1 - column, 255);
  });
  let inside = levels.filter((_, i) => margins[i] >= depth);
  const [low, high] = range(inside);
  const isAtEdge = high - low < FAINTEST || !inside.length; // what there is lies at the edge
  if (isAtEdge) inside = levels;
  if (!isDarkOnLight(levels, inside, margins, depth)) {
    levels = levels.map((level) => 255 - level);
    inside = inside.map((level) => 255 - level);
  }
  const [darkest, lightest] = range(inside);
  const light = inside.filter((level) => 2 * level >= darkest + lightest).sort();
  let paper = light[Math.floor(light.length / 2)];
  const beside = levels
    .filter((level, i) => (isAtEdge || margins[i] < depth) && 3 * (level - darkest) > paper - darkest)
    .sort();
  if (beside.length) paper = beside[Math.floor(beside.length / 20)];
  const ink = new Ink(width, height);
  ink.levels = levels.map((level) =>
    level < paper && 8 * (paper - level) >= paper - darkest ? paper - level : 0,
  );
  eraseFrame(ink, depth);
  const [, strongest] = range(ink.levels);
  ink.levels = ink.levels.map((level) => (8 * level < strongest ? 0 : level));
  return ink;
}

/** Returns whether the lighter half of the grey levels is the paper. */
function isDarkOnLight(levels, inside, margins, depth) {
  const [darkest, lightest] = range(inside);
  const isLight = (level) => 2 * level >= darkest + lightest;
  const numLight = inside.filter(isLight).length;
  const rings = Array.from({ length: depth }, () => ({ size: 0, light: 0 }));
  levels.forEach((level, i) => {
    const ring = rings[margins[i]];
    if (!ring) return;
    ring.size += 1;
    if (isLight(level)) ring.light += 1;
  });
  for (const { size, light } of rings.reverse()) {
    if (10 * light >= 9 * size && 3 * numLight >= inside.length) return true;
    if (10 * light <= size && 3 * numLight <= 2 * inside.length) return false;
  }
  return 2 * numLight > inside.length;
}

/** Erases lines and frames at the edge. */
function eraseFrame(ink, depth) {
  const { width, height, levels } = ink;
  const places = (isRow, line) =>
    Array.from({ length: isRow ? width : height }, (_, i) =>
      isRow ? line * width + i : i * width + line,
    );
  const share = (line, isSo) => line.filter(isSo).length / line.length;
  for (const [isRow, lines] of [[true, height], [false, width]]) {
    for (const isFirst of [true, false]) {
      const full = [];
      for (let i = 0; i < lines && full.length <= depth; i++) {
        const line = places(isRow, isFirst ? i : lines - 1 - i);
        if (10 * line.filter((place) => levels[place]).length < 9 * line.length) break;
        full.push(line);
      }
      if (full.length <= depth) for (const place of full.flat()) levels[place] = 0;
    }
  }
  const parts = partsOf(ink);
  const innerSize = (part) =>
    part.filter((place) => {
      const [row, column] = [Math.floor(place / width), place % width];
      return Math.min(row, column, height - 1 - row, width - 1 - column) >= depth;
    }).length;
  const sizes = parts.map(innerSize);
  const largest = sizes.indexOf(sizes.reduce((a, b) => Math.max(a, b), 0));
  const edges = [places(true, 0), places(true, height - 1), places(false, 0), places(false, width - 1)];
  parts.forEach((part, i) => {
    if (2 * part.length < Math.min(width, height) || (sizes[i] && i === largest)) return;
    const rows = part.map((place) => Math.floor(place / width));
    const columns = part.map((place) => place % width);
    const isLong = 2 * extent(rows) >= height || 2 * extent(columns) >= width;
    const members = new Set(part);
    const isAlong = edges.some((edge) => share(edge, (place) => members.has(place)) >= 0.5);
    if (isAlong || (isLong && !sizes[i])) for (const place of part) levels[place] = 0;
  });
}

/** Returns the places of each connected part, diagonals included, by where each begins. */
function partsOf({ width, height, levels }) {
  const isLeft = levels.map((level) => (level ? 1 : 0));
  const parts = [];
  for (let start = 0; start < levels.length; start++) {
    if (!isLeft[start]) continue;
    isLeft[start] = 0;
    const part = [start];
    for (let i = 0; i < part.length; i++) {
      const [row, column] = [Math.floor(part[i] / width), part[i] % width];
      for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
          if (!isLeft[y * width + x]) continue;
          isLeft[y * width + x] = 0;
          part.push(y * width + x);
        }
      }
    }
    parts.push(part);
  }
  return parts;
}

/** Returns whether ink looks like several digits, side by side or one above another. */
export function holdsSeveral({ width, height, levels }) {
  const points = [];
  levels.forEach((level, i) => level && points.push([i % width, Math.floor(i / width)]));
  const isParted = (across, along, part, whole) => {
    const ends = new Map(); // of each line across which there is ink
    for (const point of points) {
      const [first, last] = ends.get(point[across]) ?? [Infinity, -Infinity];
      ends.set(point[across], [Math.min(first, point[along]), Math.max(last, point[along])]);
    }
    const lines = [...ends.keys()].sort((a, b) => a - b);
    const size = (some) => extent(some.flatMap((line) => ends.get(line)));
    return lines.some((line, i) => {
      if (i === 0 || line === lines[i - 1] + 1) return false;
      const smaller = Math.min(size(lines.slice(0, i)), size(lines.slice(i)));
      return whole * smaller >= part * size(lines);
    });
  };
  return isParted(0, 1, 3, 5) || isParted(1, 0, 2, 3);
}

/** Returns grey levels of blocks, by their colors or, where it holds the drawing, their alpha. */
function greyOf({ width, height, block, alphas, colors }) {
  const opaque = 255 * block * block;
  const [, most] = range(alphas);
  const isSeen = (i) => alphas[i] > 0 && 2 * alphas[i] >= most;
  const grey = new Ink(width, height);
  const seen = [...alphas.keys()].filter(isSeen);
  if (!seen.length) {
    grey.levels.fill(255);
    return grey;
  }
  const silhouette = new Ink(width, height);
  for (const i of seen) silhouette.levels[i] = 1;
  const box = boxOf(silhouette);
  const tones = seen.map((i) => Math.floor(colors[i] / (1000 * alphas[i])));
  const [low, high] = range(tones);
  const isOpen = 4 * seen.length <= 3 * box.width * box.height;
  if (isOpen || (high - low < FAINTEST && seen.length < alphas.length)) {
    grey.levels = Uint8Array.from(alphas, (sum) => Math.floor(((opaque - sum) * 255) / opaque));
    return grey;
  }
  const behind = Math.floor(tones.reduce((sum, tone) => sum + tone) / tones.length);
  const cut = new Ink(box.width, box.height);
  cut.levels = cut.levels.map((_, i) => {
    const [row, column] = [Math.floor(i / box.width), i % box.width];
    const k = (box.top + row) * width + box.left + column;
    return Math.floor((colors[k] + 1000 * behind * (opaque - alphas[k])) / (1000 * opaque));
  });
  return cut;
}

/** Returns how many whole numbers lie from the least to the greatest. */
function extent(numbers) {
  const [low, high] = range(numbers);
  return high - low + 1;
}
