"""A bill of materials of a model, in CycloneDX: what it is, was made of, and how well it does."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from mnist_jax.files import json_sha256, sha256
from mnist_jax.release.intervals import wilson

SPEC_VERSION = "1.6"
PUBLISHER = "mnist_jax"
MODEL_REF, DATA_REF = "model", "data"


def make_bom(
    name: str,
    number: int,
    model: bytes,
    release: Mapping[str, Any],
    quantization: Mapping[str, Any] | None,
) -> bytes:
    """Returns the bill as JSON; the same run gives the same bytes, for it holds no time.

    Args:
        name: the model's.
        number: the version's.
        model: the ONNX file.
        release: what `release.json` holds.
        quantization: what `quantization.json` holds, where the file is the int8 variant.
    """
    run = release["run"]
    component = _component(name, number, model, release, quantization)
    libraries = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{library}@{version}",
            "name": library,
            "version": version,
            "purl": f"pkg:pypi/{library}@{version}",
        }
        for library, version in sorted(run["environment"]["versions"].items())
    ]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": component},
        "components": [_data(run["dataset"]), *libraries],
        "dependencies": [
            {"ref": MODEL_REF, "dependsOn": [DATA_REF, *(x["bom-ref"] for x in libraries)]}
        ],
    }
    digest = json_sha256(bom)
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, digest).urn
    return json.dumps(bom, indent=2, sort_keys=True).encode() + b"\n"


def _component(
    name: str,
    number: int,
    model: bytes,
    release: Mapping[str, Any],
    quantization: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Describes the model, with its card; takes what `make_bom` takes."""
    run, metrics = release["run"], release["metrics"]
    dataset = run["dataset"]
    _, side, channels = metrics.get("image_shape", [28, 28, 1])
    classes = len(metrics["class_names"])
    imported = run.get("imported")
    licence = {"name": imported["licence"]} if imported else {"id": "Apache-2.0"}
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL_REF,
        "name": name,
        "version": str(number),
        "description": f"{metrics['model_id']} on {dataset['title']}; {release['verdict']}",
        "hashes": [{"alg": "SHA-256", "content": sha256(model)}],
        "licenses": [{"license": licence}],
        "externalReferences": [{"type": "model-card", "url": "card/mnist_model_card.md"}],
        "properties": [
            {"name": f"{PUBLISHER}:config_hash", "value": run["config_hash"]},
            {"name": f"{PUBLISHER}:verdict", "value": release["verdict"]},
        ],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "image-classification",
                "architectureFamily": "neural network",
                "modelArchitecture": metrics["model_id"],
                "datasets": [{"ref": DATA_REF}],
                "inputs": [
                    {"format": f"float32 [batch, {channels}, {side}, {side}], levels 0 to 1"}
                ],
                "outputs": [{"format": f"float32 [batch, {classes}], a score for each class"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(metrics, quantization)},
        },
    }


def _data(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Describes the data that the model was trained on."""
    return {
        "type": "data",
        "bom-ref": DATA_REF,
        "name": dataset["title"],
        "licenses": [{"license": {"name": dataset["license"]}}],
        "hashes": [{"alg": "SHA-256", "content": dataset["data_hash"]}],
        "externalReferences": [{"type": "website", "url": dataset["source"]}],
        "data": [{"type": "dataset", "name": dataset["dataset_id"]}],
    }


def _metrics(
    metrics: Mapping[str, Any], quantization: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The accuracy of the whole test split and of each class in it, with its interval."""
    if quantization is None:
        rows = [
            (part, row["num_correct"], row["num_examples"])
            for part, row in (
                ("test split", metrics),
                *((row["class_name"], row) for row in metrics["per_class"]),
            )
            if row["num_examples"]  # a class without test images has no accuracy
        ]
    else:  # measured as a whole only
        n = quantization["comparison"]["num_examples"]
        rows = [("test split", round(quantization["comparison"]["accuracy"] * n), n)]
    described = []
    for part, num_correct, n in rows:
        low, high = wilson(num_correct, n)
        described.append(
            {
                "type": "accuracy",
                "slice": part,
                "value": f"{num_correct / n:.6f}",
                "confidenceInterval": {"lowerBound": f"{low:.6f}", "upperBound": f"{high:.6f}"},
            }
        )
    return described
