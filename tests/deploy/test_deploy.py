"""The files for Docker and Kubernetes, compared with the published schemas; no network."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(__file__).parent / "inference_service.schema.json").read_text())
COMPOSE = ROOT / "deploy" / "compose.yaml"
INFERENCE_SERVICE = yaml.safe_load((ROOT / "deploy" / "inference_service.yaml").read_text())
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()


def test_the_compose_file_is_of_its_schema(tmp_path):
    """That of the Compose Specification, which check-jsonschema brings along."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "health:"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    command += ["--output-format=json", "--verbose", str(COMPOSE), str(broken)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["successes"] == [str(COMPOSE)]
    assert {error["filename"] for error in found["errors"]} == {str(broken)}
    assert found["parse_errors"] == [] and done.returncode == 1


def test_triton_gets_the_repository_read_only_and_listens_on_this_machine():
    triton = yaml.safe_load(COMPOSE.read_text())["services"]["triton"]
    (volume,) = triton["volumes"]
    assert volume["read_only"] and f"--model-repository={volume['target']}" in triton["command"]
    assert all(port.startswith("127.0.0.1:") for port in triton["ports"])


def is_of_its_schema(service):
    import jsonschema  # for 3 s, which each worker would spend if it were above

    try:
        jsonschema.validate(service, SCHEMA)
    except jsonschema.ValidationError:
        return False
    return True


def test_the_inference_service_is_of_its_schema():
    assert is_of_its_schema(INFERENCE_SERVICE)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["predictor"].update(maxReplica=3),
        lambda spec: spec["predictor"].update(scaleTarget="70 %"),
        lambda spec: spec["predictor"]["model"].update(storageURI="pvc://x"),
        lambda spec: spec["predictor"]["model"].update(args="--flag"),
        lambda spec: spec.update(predictors={}),
    ],
    ids=["maxReplica", "a text for a number", "storageURI", "a text for a list", "predictors"],
)
def test_the_schema_would_have_seen_a_mistake(change):
    wrong = json.loads(json.dumps(INFERENCE_SERVICE))
    change(wrong["spec"])
    assert not is_of_its_schema(wrong)


def test_both_give_triton_the_same_flags():
    """But for the folder, which KServe's own runtime names."""
    compose = yaml.safe_load(COMPOSE.read_text())["services"]["triton"]["command"]
    kserve = INFERENCE_SERVICE["spec"]["predictor"]["model"]["args"]
    assert [flag for flag in compose[1:] if "model-repository" not in flag] == kserve


def test_the_documents_commands_are_of_programs_that_are_there():
    commands = [
        shlex.split(line, comments=True)
        for block in DOCUMENT.split("```sh\n")[1:]
        for line in block.partition("```")[0].splitlines()
    ]
    programs = [words[0] for words in commands if words and words[0].startswith("scripts/")]
    assert len(programs) > 5
    for program in programs:
        assert (ROOT / program).is_file(), program
