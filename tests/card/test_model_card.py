import json
import re
import shlex
import socket
import subprocess
import sys
from datetime import datetime

import numpy as np
import onnx
import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from onnx import TensorProto, helper
from PIL import Image

from mnist_jax import config as config_module
from mnist_jax.card import markdown, model_card, sections
from mnist_jax.config import flags
from mnist_jax.data.published import PUBLISHED
from mnist_jax.errors import UserError, printable
from mnist_jax.files import write_json
from mnist_jax.models.network import SCORES
from mnist_jax.release import criteria as release
from mnist_jax.release.intervals import wilson
from mnist_jax.release.records import Criteria
from mnist_jax.serve import preprocess

MATRIX = [[975, 3, 2], [4, 1130, 1], [9, 11, 1012]]
NASTY = ["a|b", "<b>&`*_x_*`", "two\nlines | [link](http://x)"]


def make_config(**changes):
    config = config_module.default().to_dict() | changes
    return config | {"export_format": list(config["export_format"])}


def make_run(names, **changes):
    config = make_config(**changes)
    return {
        "config": config,
        "config_hash": config_module.config_hash(config),
        "dataset": {
            "dataset_id": config["dataset_id"],
            "title": "MNIST handwritten digits",
            "source": "http://yann.lecun.com/exdb/mnist/",
            "license": "CC BY-SA 3.0",
            "citation": "Y. LeCun and others, 1998",
            "class_names": names,
            "data_hash": "dada" * 16,
            "num_train": 54_321,
            "num_validation": 5_432,
            "num_test": 3_147,
            "image_mean": 0.1307,
            "image_std": 0.3081,
            "hub_id": PUBLISHED[config["dataset_id"]].hub_id,
            "limitations": PUBLISHED[config["dataset_id"]].limitations,
        },
        "environment": {
            "python": "3.11.7",
            "platform": "Linux x86_64",
            "device_kind": "cpu",
            "num_devices": 1,
            "cpu": "A Processor 9000",
            "xla_flags": "",
            "git_commit": "c0ffee" * 6 + "c0ff",
            "git_clean": True,
            "versions": {"jax": "0.10.2", "flax": "0.12.8"},
        },
    }


def make_metrics(names, dataset_id="mnist_v1"):
    per_class = [
        {
            "class_name": name,
            "num_examples": sum(row),
            "num_correct": row[i],
            "accuracy": row[i] / sum(row),
        }
        for i, (name, row) in enumerate(zip(names, MATRIX, strict=True))
    ]
    return {
        "model_id": "mnist_cnn_v1",
        "dataset_id": dataset_id,
        "criterion_id": "nll",
        "outputs": "logits",
        "image_shape": [28, 28, 1],
        "split": "test",
        "num_examples": 3147,
        "num_correct": 3117,
        "accuracy": 3117 / 3147,
        "loss": 0.0345,
        "expected_calibration_error": 0.0041,
        "calibration_bins": 15,
        "class_names": names,
        "per_class": per_class,
        "confusion_matrix": MATRIX,
        "num_parameters": 1_199_882,
        "validation": {"num_examples": 5_432, "accuracy": 0.9912, "loss": 0.0311, "epoch": 2},
    }


def make_verification():
    parity = {
        "format": "onnx",
        "optimization": "all",
        "inputs": "test set",
        "batch_size": 256,
        "num_examples": 3147,
        "max_abs_difference": 3.4e-7,
        "num_class_disagreements": 0,
        "num_ties": 0,
        "disagreements": [],
    }
    path = "models/mnist_model.onnx"
    return {
        "passed": True,
        "failures": [],
        "checks": [{"name": "onnx: checker", "passed": True, "detail": "full"}],
        "files": {"onnx": {"path": path, "sha256": "ab" * 32, "size_bytes": 4_803_211}},
        "parity": [parity, parity | {"format": "stablehlo", "optimization": None}],
        "accuracy": {"num_correct_onnx": 3117, "num_examples": 3147},
        "latency": {
            "batch_size": 1,
            "threads": 1,
            "p50_ms": 0.1183,
            "p90_ms": 0.1271,
            "p99_ms": 0.2204,
            "num_runs": 3000,
            "num_windows": 4,
            "stable": True,
            "load_ms": 9.71,
            "first_call_ms": 0.613,
            "cpu": "Another Processor",
            "onnxruntime": "1.32.0",
        },
        "tolerance": 1e-5,
    }


def write_card(
    run_dir, names=("0", "1", "2"), verification="whole", dataset_id="mnist_v1", **changes
):
    """Judges the example, writes its two JSON files and the card; returns the card's text."""
    names = list(names)
    verification = make_verification() if verification == "whole" else verification
    run = make_run(names, dataset_id=dataset_id, **changes)
    training = {"best_epoch": 2, "num_epochs": 3, "seconds": 61.5, "images_per_s": 4200.0}
    metrics = make_metrics(names, dataset_id)
    verdict = release.judge(
        Criteria.of(run["config"]),
        run=run,
        metrics=metrics,
        training=training,
        verification=verification,
    )
    epoch = {"train_loss": 0.05, "train_accuracy": 0.98}
    write_json(run_dir / "logs" / "release.json", verdict)
    write_json(run_dir / "logs" / "history.json", {"best_epoch": 2, "epochs": [epoch] * 3})
    model_card.write(run_dir)
    return (run_dir / "model_card" / "mnist_model_card.md").read_text()


def tables_of(card):
    """The card's tables as lists of rows, each cell as the reader sees it."""
    tables, row, cell = [], [], None
    for token in MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type in ("td_open", "th_open"):
            cell = row
        elif token.type == "inline" and cell is not None:
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "strong_open", "strong_close", "text_special"}, token.content
            cell.append("".join(child.content for child in token.children))
            cell = None
    return tables


def section(card, heading):
    return re.split(r"^## ", card.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]


def test_a_released_card_says_so_first(tmp_path):
    card = write_card(tmp_path)
    lines = ModelCard(card).text.strip().splitlines()
    assert lines[0] == "# mnist_cnn_v1 on mnist_v1"
    assert lines[2] == "> **RELEASED.** All 7 criteria passed."
    criteria = tables_of(card)[0]
    assert len(criteria) == 8
    assert criteria[1] == [
        *("pass", "test_accuracy", "0.9905", ">= 0.97", "3,147", "0.9864 to 0.9933")
    ]


def test_the_rules_read_well_in_the_source_too(tmp_path):
    card = write_card(tmp_path, min_test_accuracy=0.9999)
    for rule in (">= 0.9999", ">= 0.9", "< 1", "must hold", "<= 10 MB", "<= 50 ms"):
        assert f"| {rule} |" in card
    assert "`metrics_consistent` holds if" in card


def test_a_refused_card_says_so_and_why_first(tmp_path):
    card = write_card(tmp_path, min_test_accuracy=0.9999)
    lines = ModelCard(card).text.strip().splitlines()
    assert lines[2] == "> **REFUSED: do not use this model as a release.**"
    assert lines[4] == "> - test_accuracy 0.9905 is below 0.9999 by 0.00943"
    assert tables_of(card)[0][1][0] == "FAIL"
    assert "RELEASED" not in card


def test_the_metadata_is_a_valid_model_index_made_without_a_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the card asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    data = ModelCard(write_card(tmp_path)).data
    assert data.license == "apache-2.0"
    assert data.library_name == "onnx"
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["ylecun/mnist"]
    assert {"image-classification", "jax", "released"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert (result.metric_type, result.metric_value) == ("accuracy", 3117 / 3147)
    assert "3147" in result.metric_name


def test_digits_are_not_on_the_hub_and_a_run_without_export_has_no_onnx_library(tmp_path):
    data = ModelCard(write_card(tmp_path, verification=None, dataset_id="digits_v1")).data
    assert data.datasets is None
    assert data.eval_results[0].dataset_type == "digits_v1"
    assert data.library_name == "flax"
    assert "refused" in data.tags


@pytest.mark.parametrize("dataset_id", config_module.DATASET_IDS)
def test_every_data_set_has_limitations_of_its_own(dataset_id, tmp_path):
    card = write_card(tmp_path, dataset_id=dataset_id)
    said = section(card, "Limitations")
    assert f"- {PUBLISHED[dataset_id].limitations}\n" in said
    others = {other.limitations for other in PUBLISHED.values()}
    assert len(others) == len(PUBLISHED) and model_card.LIMITATIONS not in others


def test_own_pictures_get_the_means_over_the_classes_and_a_page_on_the_data(tmp_path):
    assert "Pictures of a rare size" not in write_card(tmp_path)
    path = tmp_path / "logs" / "release.json"
    verdict = json.loads(path.read_text())
    verdict["metrics"] |= {"dataset_id": "own_hands", "auc": 0.98765, "balanced_accuracy": 0.9}
    verdict["metrics"]["intervals_95"] = {"auc": [0.97, 0.99], "balanced_accuracy": [0.8, 0.95]}
    write_json(path, verdict)
    found = {"count": 1, "named": [["big.png", "3024x3024"]]}
    none = {"count": 0, "named": []}
    report = {"counts": {"train": {"0": 5, "1": 6, "2": 7}}, "sizes": {"9x9": 18}, "modes": {}}
    report |= {"odd_sizes": found, "duplicates_within": {}, "duplicates_across": {}}
    report |= dict.fromkeys(("unreadable", "near_duplicates", "two_labels"), none)
    report |= {"absent_classes": {}, "dropped": {}}
    write_json(tmp_path / "logs" / "data_report.json", report)
    model_card.write(tmp_path)
    card = (tmp_path / "model_card" / "mnist_model_card.md").read_text()
    assert ["AUC", "0.9877", "0.9700 to 0.9900"] in tables_of(card)[5]
    assert "answering 1 to all would be right for 0.3607." in card  # 1,135 of 3,147
    assert "big.png, 3024x3024" in section(card, "Data")
    assert "the network met the test split only afterwards" in section(card, "Data")


def test_the_means_over_seeds_are_shown_where_they_are_wanted():
    figures = {"mean": 0.95, "std": 0.01, "interval_95": [0.94, 0.96], "n": 5}
    error = {"mean": 9.0, "std": 1.0, "interval_95": [8.0, 10.0], "n": 5}
    measured = {"num_seeds": 5, "released_seed": 2, "test_error_percent": {"selected": error}}
    measured["test_means"] = {"selected": {"auc": figures}}
    line = "| selected: AUC, 0 to 1 | 0.9500 | 0.0100 | 0.9400 to 0.9600 |"
    assert line in sections.over_seeds(measured, has_means=True)
    assert "AUC" not in sections.over_seeds(measured, has_means=False)
    del measured["test_means"]  # of a run of an earlier version
    assert "selected | 9.000" in sections.over_seeds(measured, has_means=True)


def test_a_data_set_without_facts_gets_the_limitations_of_all(tmp_path):
    write_card(tmp_path)
    path = tmp_path / "logs" / "release.json"
    verdict = json.loads(path.read_text())
    verdict["metrics"]["dataset_id"] = verdict["run"]["dataset"]["dataset_id"] = "own_v1"
    for key in ("limitations", "hub_id", "license"):
        del verdict["run"]["dataset"][key]
    write_json(path, verdict)
    model_card.write(tmp_path)
    card = (tmp_path / "model_card" / "mnist_model_card.md").read_text()
    assert model_card.LIMITATIONS in section(card, "Limitations")
    assert "| licence | not known |" in section(card, "Data")
    assert ModelCard(card).data.datasets is None


def test_a_card_of_a_network_that_was_trained_elsewhere_says_what_is_not_known(tmp_path):
    write_card(tmp_path)
    path = tmp_path / "logs" / "release.json"
    verdict = json.loads(path.read_text())
    verdict["training"] = verdict["metrics"]["validation"] = None
    verdict["run"] |= {"config": None, "config_hash": None}
    verdict["run"]["dataset"] = {"dataset_id": "own_images", "num_test": 3147}
    verdict["metrics"]["image_shape"] = [32, 32, 3]
    write_json(path, verdict)
    (tmp_path / "logs" / "history.json").unlink()
    model_card.write(tmp_path)
    card = (tmp_path / "model_card" / "mnist_model_card.md").read_text()
    assert "| training | not known |" in section(card, "Training")
    assert "| test images | 3,147 |" in section(card, "Data")
    assert "validation split chose" not in card and "scripts/train" not in card
    assert ModelCard(card).data.license is None  # it is its author's to say
    loading = section(card, "How to load it")
    assert "[batch, 3, 32, 32]`, levels 0 to 1, red, green, blue" in loading
    code = re.search(r"```python\n(.*?)\n```", loading, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert "float32 [3, 32, 32]" in code and "onto white" in code


def test_the_sections_hold_what_the_json_files_hold(tmp_path):
    card = write_card(tmp_path)
    for heading, wanted in {
        "Data": ["54,321", "5,432", "3,147", "CC BY-SA 3.0", "dada" * 16],
        "Training": [
            "1,199,882",
            "nll, adam",
            "61.5 s; 4,200 images/s, median over epochs",
            "A Processor 9000",
            "0.0311",
            "0.9912",
        ],
        "Results on the test split": ["0.0345", "0.0041", "15 bins", "2 taken for 1 (11 of 1,032)"],
        "Verification of the exported files": ["3.4e-07", "ab" * 32, "4,803,211", "p90 0.127 ms"],
        "Provenance": ["c0ffee", "jax 0.10.2", "3.11.7"],
    }.items():
        for text in wanted:
            assert text in section(card, heading), (heading, text)
    assert "Another Processor" in section(card, "Verification of the exported files")


def test_class_accuracies_come_with_their_intervals(tmp_path):
    rows = tables_of(write_card(tmp_path))[3]
    assert rows[1] == ["all", "3,117 of 3,147", "0.9905", "0.9864 to 0.9933"]
    low, high = wilson(1012, 1032)
    assert rows[4] == ["2", "1,012 of 1,032", "0.9806", f"{low:.4f} to {high:.4f}"]
    assert len(rows) == 5


def test_every_decimal_is_one_of_the_json_files_or_an_interval_of_their_counts(tmp_path):
    text = re.sub(r"```.*?```", "", ModelCard(write_card(tmp_path)).text, flags=re.DOTALL)
    files = [(tmp_path / "logs" / f"{name}.json").read_text() for name in ("release", "history")]
    values = [value for file in files for value in numbers_in(json.loads(file))]
    for row in MATRIX:
        values += wilson(max(row), sum(row))
    decimals = re.findall(r"\d+(?:\.\d+)+(?:e-\d+)?", text)
    assert len(decimals) > 30
    for shown in decimals:
        formats = (f".{len(shown.partition('.')[2])}f", ".2g", ".4g", ".6g")
        is_value = any(format(value, form) == shown for value in values for form in formats)
        assert is_value or shown in "".join(files), shown


def numbers_in(tree):
    if isinstance(tree, dict | list):
        items = tree.values() if isinstance(tree, dict) else tree
        return [number for item in items for number in numbers_in(item)]
    return [tree] if isinstance(tree, int | float) and not isinstance(tree, bool) else []


def test_nasty_names_cannot_break_the_card(tmp_path):
    verification = make_verification()
    verification["latency"]["cpu"] = "CPU <script>alert(1)</script> | x"
    verification["checks"][0]["detail"] = "Reshape | `a`\n## Heading"
    verification["files"]["onnx"]["path"] = "models/'); import os #\n```.onnx"
    plain = tables_of(write_card(tmp_path / "plain"))
    card = write_card(tmp_path / "nasty", NASTY, verification)
    assert "<script>" not in card
    assert re.findall("^#+ .*", card, re.MULTILINE) == re.findall(
        "^#+ .*", write_card(tmp_path / "plain"), re.MULTILINE
    )
    nasty = tables_of(card)
    assert [[len(row) for row in table] for table in nasty] == [
        [len(row) for row in table] for table in plain
    ]
    assert [row[0] for row in nasty[3][2:]] == [" ".join(name.split()) for name in NASTY]
    code = re.search(r"```python\n(.*?)\n```", card, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert f"CLASS_NAMES = {NASTY!r}" in code


@given(st.text(alphabet="<>&;=!?/#-ab1x \\`*_[]()|~$\n\"'") | st.text())
@example("<b>bold</b> <!-- --> <?x?> </p> &lt; &#60; <http://x> < 1 <= 2 >= 3")
def test_an_escaped_string_is_shown_as_it_is(text):
    (inline,) = MarkdownIt("commonmark").parseInline(markdown.escaped(text))
    assert {token.type for token in inline.children} <= {"text", "text_special"}
    shown = "".join(token.content for token in inline.children)
    assert shown == printable(" ".join(text.split()))


def test_a_card_without_export_has_nothing_to_load_and_says_why(tmp_path):
    card = write_card(tmp_path, verification=None, skip_export=True)
    assert "> **REFUSED" in card
    assert "Export was skipped" in section(card, "Verification of the exported files")
    assert section(card, "How to load it").strip() == "This run has no ONNX file."


def test_a_card_of_other_formats_alone_has_no_latency(tmp_path):
    verification = make_verification() | {"files": {}, "parity": [], "latency": None}
    verification["accuracy"]["num_correct_onnx"] = None
    card = write_card(tmp_path, verification=verification)
    assert "> **REFUSED" in card
    assert "No ONNX file was timed." in card


def test_scores_that_are_not_finite_and_a_timing_that_did_not_settle_are_said(tmp_path):
    verification = make_verification()
    verification["parity"][0]["max_abs_difference"] = None
    verification["latency"]["stable"] = False
    card = write_card(tmp_path, verification=verification)
    assert tables_of(card)[5][1][5] == "not finite"
    assert "the timing did not settle" in card


def test_plots_are_shown_at_half_their_pixels_with_words_for_who_cannot_see_them(tmp_path):
    assert "<img" not in write_card(tmp_path)
    folder = tmp_path / "model_card" / "plots"
    folder.mkdir()
    for name in model_card.PLOTS:
        size = (2000, 100) if name == "robustness" else (1050, 660)
        Image.new("L", size).save(folder / f"{name}.png")
    images = re.findall(r'<img src="(.+?)" width="(\d+)" alt="(.+?)">', write_card(tmp_path))
    assert [path for path, *_ in images] == [f"plots/{name}.png" for name in model_card.PLOTS]
    assert all((tmp_path / "model_card" / path).is_file() for path, *_ in images)
    assert len({words for *_, words in images}) == len(model_card.PLOTS)
    widths = {int(width) for path, width, _ in images if "robustness" not in path}
    assert widths == {525} and images[-1][1] == "720"


def test_what_a_reader_needs_first_comes_first(tmp_path):
    card = write_card(tmp_path)
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings[0] == "How to load it"
    assert card.index("RELEASED") < card.index("How to load it")
    folded = re.findall(
        r"<details><summary>([^\n]*)</summary>\n\n(.*?)\n\n</details>", card, re.DOTALL
    )
    assert folded[0][0] == "1 of 1 checks passed"
    assert [summary for summary, body in folded if "```sh" in body] == ["The same training again"]


def test_what_was_done_to_images_is_told(tmp_path):
    plain = write_card(tmp_path, augment_shift_px=2, augment_rotation_degrees=10.0)
    assert "| shifted by up to 2 px, turned by up to 10.0° |" in plain
    byerly = write_card(tmp_path, augment_id="byerly")
    assert "| turned by up to 30°, shifted, squeezed and partly erased, as by Byerly" in byerly


def test_every_column_has_a_heading(tmp_path):
    for header, *_ in tables_of(write_card(tmp_path)):
        assert all(header[1:]) and header[0]


@pytest.mark.parametrize(
    ("commit", "clean", "shown"),
    [
        ("abc", True, "abc"),
        ("abc", False, "abc, with changes that were not committed"),
        (None, None, "not known: no git checkout"),
    ],
)
def test_the_commit_is_told_as_it_is(commit, clean, shown, tmp_path):
    write_card(tmp_path)
    path = tmp_path / "logs" / "release.json"
    verdict = json.loads(path.read_text())
    verdict["run"]["environment"] |= {"git_commit": commit, "git_clean": clean}
    write_json(path, verdict)
    model_card.write(tmp_path)
    card = (tmp_path / "model_card" / "mnist_model_card.md").read_text()
    assert tables_of(card)[-1][1] == ["git commit", shown]


def test_the_command_trains_the_same_model(tmp_path):
    changes = {
        "dataset_id": "fashion_mnist_v1",
        "learning_rate": 3e-05,
        "augment_rotation_degrees": 10.0,
        "min_test_accuracy": 0.9,
        "data_dir": "/somewhere/private",
    }
    about_output = {
        "export_format": ("onnx", "safetensors"),
        "skip_export": True,
        "skip_visualizations": True,
        "tensorboard": False,
    }
    card = write_card(tmp_path, **changes, **about_output)
    assert "/somewhere/private" not in card
    code = re.search(r"```sh\n(.*?)\n```", card, re.DOTALL)[1]
    assert not any(key in code for key in about_output)
    program, *arguments = shlex.split(code.replace("\\\n", ""))
    assert program == "scripts/train"
    parsed = flags.parse(arguments, {}, datetime(2026, 1, 1))
    assert config_module.config_hash(parsed) == config_module.config_hash(make_config(**changes))
    named = {argument.partition("=")[0].removeprefix("--config.") for argument in arguments}
    assert named == {*config_module.default()} - {*about_output, "network"} - {
        *config_module.PLACES
    }


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ("logits", "probabilities, which sum to one."),
        ("capsules", "lengths of capsules, from 0 to 1, which do not sum to one."),
    ],
)
def test_the_card_says_what_this_models_scores_are(outputs, said, tmp_path):
    """Whatever the network is called."""
    assert said == f"{SCORES[outputs]}."
    write_card(tmp_path)
    path = tmp_path / "logs" / "release.json"
    verdict = json.loads(path.read_text())
    verdict["metrics"]["outputs"] = outputs
    write_json(path, verdict)
    model_card.write(tmp_path)
    card = (tmp_path / "model_card" / "mnist_model_card.md").read_text()
    loading = section(card, "How to load it")
    assert f"the largest wins: {said}" in loading
    assert ("capsule" in loading) == ("lengths" in said)
    assert "pip install onnxruntime pillow" in loading


def test_the_snippet_runs_and_agrees_with_numpy(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(784, 3)).astype(np.float32) / 10
    bias = np.array([0.0, 0.3, 0.1], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel())
            for name, array in (("weights", weights), ("bias", bias))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    names = ["zero", 'it\'s "one"', "two"]
    card = write_card(tmp_path, names)
    (tmp_path / "models").mkdir()
    onnx.save(model, tmp_path / "models" / "mnist_model.onnx")

    ink = np.zeros((56, 56), np.uint8)
    ink[10:40, 20:30] = 200
    Image.fromarray(ink).save(tmp_path / "light_on_black.png")
    Image.fromarray(255 - ink).convert("RGB").save(tmp_path / "dark_on_white.png")
    (tmp_path / "snippet.py").write_text(re.search(r"```python\n(.*?)\n```", card, re.DOTALL)[1])

    def run(*pictures):
        done = subprocess.run(
            [sys.executable, "-W", "error", "snippet.py", *pictures],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def expected(ink):
        image = preprocess.image_of_picture(ink) / 255 if ink.any() else np.zeros(784)
        logits = image.reshape(-1) @ weights.astype(np.float64) + bias
        scores = np.exp(logits) / np.exp(logits).sum()
        return f"{names[scores.argmax()]}: {scores.max():.4f}"

    assert run() == [expected(np.zeros_like(ink))]
    assert run("light_on_black.png", "dark_on_white.png") == [expected(ink)] * 2


def test_a_missing_release_is_an_error_for_people(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*release\.json"):
        model_card.write(tmp_path)
