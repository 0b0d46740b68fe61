// Scores images in JavaScript, with nothing installed: node examples/client.mjs HOST:PORT MODEL REQUEST.json
import { readFile } from "node:fs/promises";

const [address, model, path] = process.argv.slice(2);
const url = `http://${address}/v2/models/${model}`;
const { labels } = (await (await fetch(url)).json()).parameters;

const answer = await fetch(`${url}/infer`, { method: "POST", body: await readFile(path) });
const content = await answer.json();
if (!answer.ok) throw new Error(content.error);

const { data, shape } = content.outputs[0];
for (let image = 0; image < shape[0]; image++) {
  const scores = data.slice(image * shape[1], (image + 1) * shape[1]);
  const best = scores.indexOf(Math.max(...scores));
  console.log(`${labels[best]} ${scores[best].toFixed(4)}`);
}
