import copy
import hashlib
import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mnist_jax.files import read_json
from mnist_jax.release.criteria import wilson
from mnist_jax.repository.bom import SPEC_VERSION, make_bom


@pytest.fixture(scope="module")
def release(released):
    return read_json(released / "run" / "logs" / "release.json")


@pytest.fixture(scope="module")
def bom(release):
    return make_bom("digits", 3, b"model", release, None)


def errors(bom):
    return JsonStrictValidator(SchemaVersion.from_version(SPEC_VERSION)).validate_str(bom.decode())


def test_it_is_of_the_published_schema(bom):
    assert errors(bom) is None


def test_the_schema_would_have_seen_a_mistake(bom):
    assert errors(bom.replace(b"machine-learning-model", b"machine-learned-model")) is not None
    assert errors(bom.replace(b'"modelArchitecture"', b'"modelShape"')) is not None


def test_it_says_what_the_run_says(bom, release):
    model = json.loads(bom)["metadata"]["component"]
    assert (model["name"], model["version"]) == ("digits", "3")
    assert model["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"model").hexdigest()}]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [row["slice"] for row in metrics] == ["test split", *map(str, range(10))]
    assert float(metrics[0]["value"]) == pytest.approx(release["metrics"]["accuracy"], abs=1e-6)
    low, high = wilson(release["metrics"]["num_correct"], release["metrics"]["num_examples"])
    interval = metrics[0]["confidenceInterval"]
    assert float(interval["lowerBound"]) == pytest.approx(low, abs=1e-6)
    assert float(interval["upperBound"]) == pytest.approx(high, abs=1e-6)
    data = next(x for x in json.loads(bom)["components"] if x["type"] == "data")
    assert data["hashes"][0]["content"] == release["run"]["dataset"]["data_hash"]


def test_a_class_without_test_images_has_no_accuracy(release):
    """Such a run is refused, and published with --force."""
    release = copy.deepcopy(release)
    release["metrics"]["per_class"][3] |= {"num_correct": 0, "num_examples": 0}
    bom = make_bom("digits", 1, b"model", release, None)
    assert errors(bom) is None
    card = json.loads(bom)["metadata"]["component"]["modelCard"]
    slices = [row["slice"] for row in card["quantitativeAnalysis"]["performanceMetrics"]]
    assert slices == ["test split", *"012456789"]


def test_an_int8_variant_has_its_own_accuracy(release):
    quantization = {"comparison": {"accuracy": 0.9, "num_examples": 360}}
    bom = make_bom("digits", 1, b"model", release, quantization)
    assert errors(bom) is None
    card = json.loads(bom)["metadata"]["component"]["modelCard"]
    (metric,) = card["quantitativeAnalysis"]["performanceMetrics"]
    assert metric["value"] == "0.900000"


def test_the_same_run_gives_the_same_bytes_and_another_another_serial_number(bom, release):
    assert make_bom("digits", 3, b"model", release, None) == bom
    other = json.loads(make_bom("digits", 3, b"other", release, None))
    assert other["serialNumber"] != json.loads(bom)["serialNumber"]
