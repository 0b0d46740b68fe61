"""The frame of the benchmarks: what is timed, in which order, and what is said of it."""

import itertools
import json

import numpy as np
import pytest
from flax import nnx

from benchmarks import interleaved
from benchmarks.interleaved import OURS, Part


@pytest.fixture
def clock():
    """A clock that candidates move on."""
    return [0.0]


def part(clock, order):
    def candidate(name, seconds):
        durations = iter(itertools.cycle(seconds))

        def run():
            order.append(name)
            clock[0] += next(durations)

        return lambda: run

    def missing():
        raise RuntimeError("needs a GPU\nand more")

    return Part(
        "some",
        "Some images",
        "images/s",
        100,
        {
            OURS: candidate(OURS, [1.0, 2.0]),
            "peer": candidate("peer", [3.0, 4.0]),
            f"{OURS}, a variant": candidate("variant", [0.5]),
            "slow peer": candidate("slow peer", [10.0]),
            "absent": missing,
        },
    )


@pytest.fixture
def measured(clock):
    order = []
    found = interleaved.run(part(clock, order), 2, lambda: clock[0])
    return found, order


def test_candidates_take_turns_after_two_rounds_that_do_not_count(measured):
    found, order = measured
    names = [OURS, "peer", "variant", "slow peer"]
    assert order == [name for name in names for _ in range(2)] + names * 2
    assert found["seconds"] == {
        OURS: [1.0, 2.0],
        "peer": [3.0, 4.0],
        f"{OURS}, a variant": [0.5, 0.5],
        "slow peer": [10.0, 10.0],
    }


def test_what_comes_before_each_run_is_not_timed(clock):
    order = []

    def clean_up():
        order.append("before")
        clock[0] += 100.0

    found = interleaved.run(part(clock, order)._replace(before=clean_up), 2, lambda: clock[0])
    assert order[0::2] == ["before"] * 16 and "before" not in order[1::2]
    assert found["seconds"][OURS] == [1.0, 2.0]


def test_what_cannot_run_here_is_noted_and_left_out(measured):
    assert measured[0]["notes"] == ["absent: not available here (needs a GPU)"]


def test_a_fault_of_ours_is_not_hidden(clock):
    def broken():
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        interleaved.run(part(clock, [])._replace(candidates={OURS: broken}), 1)


def test_ratios_are_taken_within_a_round(measured):
    ours, peer, _, slow_peer = interleaved.rows(measured[0])
    assert ours == {"name": OURS, "n": 2, "median": 75, "quartile_1": 62.5, "quartile_3": 87.5}
    assert peer["ratio"]["median"] == 2.5  # of 3 / 1 and 4 / 2
    assert slow_peer["ratio"]["median"] == 7.5
    assert interleaved.best_peer(measured[0]) == peer


@pytest.mark.parametrize(("unit", "expected"), [("images/s", 50), ("ms", 20), ("s", 0.02)])
def test_units(unit, expected):
    assert interleaved.in_unit({"unit": unit, "amount": 100}, 2.0) == pytest.approx(expected)


def test_the_report_holds_the_figures_the_machine_and_a_picture(tmp_path, measured):
    torch = pytest.importorskip("torch", reason="the extra `bench` is not installed")
    from benchmarks import report

    machine = report.describe(["--quick"])
    report.write(tmp_path / "out", machine, [measured[0]])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"benchmarks.{suffix}" for suffix in ("json", "md", "png")
    }
    found = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    assert found["parts"][0]["seconds"][OURS] == [1.0, 2.0]
    text = (tmp_path / "out" / "benchmarks.md").read_text()
    assert "| peer | 2 | 29.17 (27.08 to 31.25) | 2.50 (2.25 to 2.75) |" in text
    assert "Over the best peer, peer: 2.50 times." in text
    assert f"torch {torch.__version__}" in text
    assert "`scripts/bench --quick`" in text


def test_the_peer_has_the_same_function_as_our_network():
    torch = pytest.importorskip("torch", reason="the extra `bench` is not installed")
    from benchmarks import ours, peers
    from mnist_jax.models.network import scores, take_apart
    from mnist_jax.pipeline import build_model

    model = build_model(ours.recipe(), ours.DATASET)
    network = peers.Exported(peers.with_weights(take_apart(model)[1])).eval()
    images = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    with torch.inference_mode():
        theirs = network(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert sum(weight.numel() for weight in network.parameters()) == 1_199_882
    np.testing.assert_allclose(nnx.jit(scores)(model, images), theirs, atol=1e-5)
