// The page's preprocessing against the vectors that Python's is tested with: node --test tests/serve
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { pathToFileURL } from "node:url";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
// Copied under another name: older versions of Node take no .js file for a module.
const folder = mkdtempSync(join(tmpdir(), "page-"));
after(() => rmSync(folder, { recursive: true }));
for (const name of ["preprocess", "picture"]) {
  const source = read(`../../mnist_jax/serve/page/${name}.js`);
  writeFileSync(join(folder, `${name}.mjs`), source.replace("./preprocess.js", "./preprocess.mjs"));
}
const load = (name) => import(pathToFileURL(join(folder, `${name}.mjs`)));
const page = { ...(await load("preprocess")), ...(await load("picture")) };
const strokes = JSON.parse(read("strokes.json"));
const vectors = JSON.parse(read("vectors.json"));
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));

for (const [digit, expected] of Object.entries(vectors.strokes)) {
  test(`strokes of ${digit}`, () => {
    assert.deepEqual(page.imageOfStrokes(strokes[digit]), bytes(expected));
  });
}

for (const { name, width, height, repeat, rgba, image, several } of vectors.pictures) {
  test(name, () => {
    const picture = enlarged({ width, height, data: bytes(rgba) }, repeat);
    assert.equal(page.holdsSeveral(page.inkOfPicture(picture)), several);
    if (image === null) {
      assert.throws(() => page.imageOfPicture(picture), page.NoInkError);
    } else {
      assert.deepEqual(page.imageOfPicture(picture), bytes(image));
    }
  });
}

test("an empty field is refused", () => {
  assert.throws(() => page.imageOfStrokes([]), page.NoInkError);
});

test("a picture of which no block can be made is refused", () => {
  const picture = { width: 2000, height: 2, data: new Uint8Array(16000) };
  assert.throws(() => page.imageOfPicture(picture), /too narrow/);
});

test("levels become float32 as in NumPy", () => {
  const levels = Uint8Array.from({ length: 256 }, (_, level) => level);
  const exact = Array.from(levels, (level) => Math.fround(level / 255));
  assert.deepEqual(Array.from(page.modelInput(levels)), exact);
});

test("a larger image has the image in its middle", () => {
  const image = Uint8Array.from({ length: 784 }, (_, i) => 1 + (i % 255));
  const larger = page.inTheMiddle(image, 40);
  assert.deepEqual(larger.slice(6 * 40 + 6, 6 * 40 + 34), image.slice(0, 28));
  assert.deepEqual(larger.slice(33 * 40 + 6, 33 * 40 + 34), image.slice(27 * 28));
  assert.equal(larger.filter((level) => level).length, 784);
  assert.deepEqual(page.inTheMiddle(image, 28), image);
});

function enlarged({ width, height, data }, times) {
  const large = { width: width * times, height: height * times };
  large.data = new Uint8Array(4 * large.width * large.height);
  for (let row = 0; row < large.height; row++) {
    for (let column = 0; column < large.width; column++) {
      const from = 4 * (Math.floor(row / times) * width + Math.floor(column / times));
      large.data.set(data.subarray(from, from + 4), 4 * (row * large.width + column));
    }
  }
  return large;
}
