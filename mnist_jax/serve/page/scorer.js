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

/** Returns {labels, side}: of a version's classes, and of its images; without one, the champion's. */
export async function describe(name, version) {
  const { parameters, inputs } = await ask(address(name, version));
  return { labels: parameters.labels, side: inputs[0].shape[3] };
}

/** Returns {scores, version} of one image: side x side values from 0 to 1. */
export async function score(name, version, image, side) {
  const shape = [1, 1, side, side];
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
