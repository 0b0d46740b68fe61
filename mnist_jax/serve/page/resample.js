// Pictures of the user's own to squares of whole levels: docs/preprocessing.md, "Own pictures".
// mnist_jax/data/pictures.py is the same in Python.

/** Returns a picture, RGBA data of ImageData, as a model sees it: levels [side, side, channels]. */
export function imageOfData({ width, height, data }, side, channels, fit) {
  const square = resample(flatten(data), height, width, 3, side, fit);
  return channels === 1 ? toGrey(square) : square;
}

/** Returns levels [side, side, channels] channel by channel, as a model takes them. */
export function inPlanes(image, channels) {
  const size = image.length / channels;
  return image.map((_, i) => image[(i % size) * channels + Math.floor(i / size)]);
}

/** Returns levels of RGBA, straight alpha, over white: three channels. */
export function flatten(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0; i < rgba.length / 4; i += 1) {
    const alpha = rgba[4 * i + 3];
    for (let c = 0; c < 3; c += 1) {
      rgb[3 * i + c] = Math.floor((rgba[4 * i + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return rgb;
}

/** Returns one level for each three. */
export function toGrey(rgb) {
  const grey = new Uint8Array(rgb.length / 3);
  for (let i = 0; i < grey.length; i += 1) {
    grey[i] = Math.floor((299 * rgb[3 * i] + 587 * rgb[3 * i + 1] + 114 * rgb[3 * i + 2] + 500) / 1000);
  }
  return grey;
}

// For each new pixel a list of [old pixel, whole-number weight]; each list adds up to `total`.
function axisWeights(source, target) {
  const taps = [];
  for (let j = 0; j < target; j += 1) {
    if (source === target) {
      taps.push([[j, 1]]);
    } else if (source > target) {
      const list = [];
      for (let i = Math.floor((j * source) / target); i < source && i * target < (j + 1) * source; i += 1) {
        const shared = Math.min((i + 1) * target, (j + 1) * source) - Math.max(i * target, j * source);
        if (shared > 0) list.push([i, shared]);
      }
      taps.push(list);
    } else {
      const place = (2 * j + 1) * source - target;
      const first = Math.floor(place / (2 * target));
      const share = place - first * 2 * target;
      const inside = (i) => Math.min(Math.max(i, 0), source - 1);
      taps.push([[inside(first), 2 * target - share], [inside(first + 1), share]]);
    }
  }
  return { taps, total: source === target ? 1 : source > target ? source : 2 * target };
}

/** Brings levels [height, width, channels] to [side, side, channels]; fit: pad, crop or stretch. */
export function resample(levels, height, width, channels, side, fit) {
  const square = fit === "crop" ? Math.min(height, width) : Math.max(height, width);
  const rows = axisWeights(fit === "stretch" ? height : square, side);
  const columns = axisWeights(fit === "stretch" ? width : square, side);
  // Where the square begins in the picture: below 0 with padding, which is black and adds nothing.
  const begin = (length) => {
    if (fit === "stretch") return 0;
    return fit === "crop" ? Math.floor((length - square) / 2) : -Math.floor((square - length) / 2);
  };
  const [top, left] = [begin(height), begin(width)];
  const total = rows.total * columns.total;
  const result = new Uint8Array(side * side * channels);
  const length = width * channels;
  const line = new Float64Array(length); // sums down: whole numbers, exact in any order
  for (let y = 0; y < side; y += 1) {
    line.fill(0);
    for (const [i, down] of rows.taps[y]) {
      if (top + i < 0 || top + i >= height) continue;
      const start = (top + i) * length;
      for (let k = 0; k < length; k += 1) line[k] += down * levels[start + k];
    }
    for (let x = 0; x < side; x += 1) {
      for (let c = 0; c < channels; c += 1) {
        let sum = 0;
        for (const [k, across] of columns.taps[x]) {
          if (left + k >= 0 && left + k < width) sum += across * line[(left + k) * channels + c];
        }
        result[(y * side + x) * channels + c] = Math.floor((2 * sum + total) / (2 * total));
      }
    }
  }
  return result;
}
