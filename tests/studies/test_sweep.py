"""A sweep reads validation alone, trains nothing twice, and says which value is the best."""

import json
from pathlib import Path

import pytest

from mnist_jax import data
from mnist_jax.errors import UserError
from mnist_jax.files import read_json
from mnist_jax.studies import sweep


def test_each_value_is_trained_once_and_the_test_split_is_not_read(
    linear_network, tmp_path, monkeypatch
):
    read = data.read

    def read_but_test(dataset, split):
        assert split != "test"
        return read(dataset, split)

    monkeypatch.setattr(data, "read", read_but_test)
    common = [f"--model-id={linear_network}", "--dataset-id=digits_v1", "--epochs=1"]
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'sweep'}", "-q"]
    over = "--over=learning-rate=0.01,0.0000001"
    assert sweep.main([over, *common, *places]) == 0
    rows = read_json(tmp_path / "sweep" / "sweep.json")["rows"]
    assert [row["values"] for row in rows] == [
        {"learning_rate": "0.01"},
        {"learning_rate": "0.0000001"},
    ]
    assert rows[0]["accuracy"] > rows[1]["accuracy"] and rows[0]["num_examples"] == 180
    lines = (tmp_path / "sweep" / "sweep.md").read_text().splitlines()
    assert lines[2].startswith(f"| 0.01 | {rows[0]['accuracy']:.4f} | ")
    assert (tmp_path / "sweep" / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.suffix for path in (tmp_path / "sweep").iterdir()} == {".json", ".md", ".png"}

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(sweep, "train", refuse)
    assert sweep.main([over, *common, *places]) == 0
    # By another key, in the same folder: the one that is trained, under its new name.
    over, rate = "--over=batch-size=64", "--learning-rate=0.01"
    assert sweep.main([over, rate, *common, *places]) == 0
    found = read_json(tmp_path / "sweep" / "sweep.json")["rows"]
    assert [row["values"] for row in found] == [{"batch_size": "64"}, rows[1]["values"]]
    assert {**found[0], "values": rows[0]["values"]} == rows[0]


def test_a_network_that_has_changed_is_trained_again(linear_network, tmp_path):
    network = tmp_path / "network.py"
    path, _, name = linear_network.rpartition(":")
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'sweep'}", "-q"]
    flags = [f"--model-id={network}:{name}", "--dataset-id=digits_v1", "--epochs=1", *places]
    hashes = set()
    for line in ("", "# changed\n"):
        network.write_text(Path(path).read_text() + line)
        assert sweep.main(["--over=learning-rate=0.01", *flags]) == 0
        rows = read_json(tmp_path / "sweep" / "sweep.json")["rows"]
        hashes.add(rows[0]["own_code"]["model_id"]["sha256"])
    assert len(hashes) == len(rows) == 2


def test_the_weights_of_the_classes_count(linear_network, tmp_path):
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({str(digit): 1 if digit else 1e6 for digit in range(10)}))
    common = [f"--model-id={linear_network}", "--dataset-id=digits_v1", "--epochs=1"]
    places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'sweep'}", "-q"]
    assert sweep.main([f"--over=class_weights=none,{weights}", *common, *places]) == 0
    even, uneven = read_json(tmp_path / "sweep" / "sweep.json")["rows"]
    assert uneven["accuracy"] < 0.2 < even["accuracy"]  # the one class is all that counts


def test_two_keys_give_every_pair():
    found = sweep.combinations(["epochs=1,2", "batch-size=32,64"])
    assert len(found) == 4 and found[1] == {"epochs": "1", "batch_size": "64"}


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["epochs=1", "epochs=2"], "give one key, or two that differ"),
        (["epochs=1", "seed=2", "batch_size=3"], "give one key, or two that differ"),
        (["epochs="], "--over epochs has no values"),
        (["output_dir=a,b"], "output_dir is not a key that changes a model"),
        (["nothing=1"], "nothing is not a key that changes a model"),
    ],
)
def test_what_cannot_be_swept_over_is_a_mistake(over, said):
    with pytest.raises(UserError, match=said):
        sweep.combinations(over)


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch-size=64"],
        ["--batch_size", "64"],
        ["-batch_size=64"],
        ["--config.batch_size=64"],
    ],
    ids=" ".join,
)
def test_a_flag_of_a_swept_key_is_a_mistake(flags, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "run", None)  # which cannot be called
    assert sweep.main(["--over=batch-size=32,64", "--epochs=1", *flags]) == 2
    said = capsys.readouterr().err
    assert f"{flags[0].partition('=')[0]} and --over batch_size are both given" in said


def test_every_value_is_checked_before_the_first_is_trained(capsys):
    assert sweep.main(["--over=epochs=1,0"]) == 2
    assert "epochs is 0, but must be from 1" in capsys.readouterr().err
