// Scores from the server this page came from: Open Inference Protocol v2, over JSON.

/** What the latency is the time of. */
export const MEASURED = "round trip";

/** Returns what is ready, {name: {champion, versions}}: versions as text, champion maybe null. */
export async function list() {
  const models = {};
  for (const { name, version, state } of await ask("v2/repository/index", {})) {
    if (state === "READY") (models[name] ??= { versions: [] }).versions.push(version);
  }
  for (const [name, model] of Object.entries(models)) {
    model.versions.sort((a, b) => b - a);
    const { parameters } = await ask(address(name, model.versions[0]));
    model.champion = parameters.champion;
  }
  return models;
}

/**
 * Returns {labels, side, channels, preparation} of a version, or of the champion: its classes, the
 * sizes of its images, and how a picture becomes one.
 */
export async function describe(name, version) {
  const { parameters, inputs } = await ask(address(name, version));
  const { labels, preparation } = parameters;
  const [, channels, side] = inputs[0].shape;
  return { labels, side, channels, preparation };
}

/** Returns {scores, version} of one image: values from 0 to 1, of a shape [channels, side, side]. */
export async function score(name, version, image, sizes) {
  const shape = [1, ...sizes];
  const input = { name: "image", shape, datatype: "FP32", data: Array.from(image) };
  const answer = await ask(`${address(name, version)}/infer`, { inputs: [input] });
  const output = answer.outputs.find(({ name }) => name === "scores");
  return { scores: output.data, version: answer.model_version };
}

function address(name, version) {
  return `v2/models/${name}${version ? `/versions/${version}` : ""}`;
}

/** Returns the JSON of a GET, or of a POST where there is something to send. */
async function ask(path, body) {
  let response;
  try {
    const headers = { "Content-Type": "application/json" };
    response = await fetch(path, body && { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answered ${response.status}.`);
  return answer;
}
