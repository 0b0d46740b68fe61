// Scores from a model that runs in the browser: takes the place of the page's scorer.js.

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";

/** What the latency is the time of. */
export const MEASURED = "in this browser";

const here = (path) => new URL(path, import.meta.url).href;
ort.env.wasm.numThreads = 1; // more would need headers that not every host can send
ort.env.wasm.wasmPaths = { wasm: here("onnxruntime/ort-wasm-simd-threaded.wasm") };

let catalogue;
const sessions = {}; // promises, by path

/** Returns what there is, {name: {champion, versions}}: versions as text, newest first. */
export async function list() {
  catalogue = JSON.parse(await (await get("models/index.json")).text());
  return catalogue;
}

/** Returns what the page's own `describe` does, once the version is loaded. */
export async function describe(name, version, progress) {
  const number = version || catalogue[name].champion;
  await load(name, number, progress);
  return { labels: catalogue[name].labels[number], ...catalogue[name].models[number] };
}

/** Returns {scores, version} of one image: values from 0 to 1, of a shape [channels, side, side]. */
export async function score(name, version, image, sizes) {
  const number = version || catalogue[name].champion;
  const session = await load(name, number);
  const input = new ort.Tensor("float32", image, [1, ...sizes]);
  const { scores } = await session.run({ image: input });
  return { scores: scores.data, version: number };
}

async function load(name, number, progress) {
  const path = `models/${name}/${number}/model.onnx`;
  sessions[path] ??= get(path)
    .then((response) => bytesOf(response, progress))
    .then((bytes) => ort.InferenceSession.create(bytes));
  try {
    return await sessions[path];
  } catch (error) {
    delete sessions[path]; // so that choosing it again tries again
    throw error;
  }
}

async function get(path) {
  const response = await fetch(here(path)).catch(() => null);
  if (!response?.ok) throw new Error(`${path} cannot be fetched. Is the connection up?`);
  return response;
}

/** Returns what comes, and tells how much has come. */
async function bytesOf(response, progress) {
  const isPacked = response.headers.has("Content-Encoding"); // then its length is another
  const total = isPacked ? 0 : Number(response.headers.get("Content-Length"));
  const chunks = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    chunks.push(part.value);
    loaded += part.value.length;
    progress?.(loaded, total);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}
