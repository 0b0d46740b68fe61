"""What a checkpoint promises: whole or not at all, and nothing else is ever taken for whole."""

import json
import random
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.errors import UserError
from mnist_jax.training.checkpoint import TrainingCheckpoints, load_released, save_released


def arrays(epoch):
    rng = np.random.default_rng(epoch)
    return {
        "kernel": jnp.asarray(rng.standard_normal((200, 300), np.float32)),
        "state": (jnp.int32(epoch), {"mean": jnp.float32(0.25)}),
    }


def history(epoch):
    return {"best_epoch": 1, "epochs": [{"epoch": n, "loss": 1 / n} for n in range(1, epoch + 1)]}


def assert_is_of(restored, epoch):
    found, found_history = restored
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(arrays(epoch)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found_history == history(epoch)


def save(folder, *epochs):
    with TrainingCheckpoints(folder) as checkpoints:
        for epoch in epochs:
            checkpoints.save(epoch, arrays(epoch), history(epoch))


def restore(folder):
    with TrainingCheckpoints(folder) as checkpoints:
        return checkpoints.restore_latest(arrays(0))


def flip(path, position, bit):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def largest_file(folder):
    return max(files_of(folder), key=lambda path: path.stat().st_size)


def test_the_last_epoch_comes_back_and_only_two_are_kept(tmp_path):
    assert restore(tmp_path) is None
    save(tmp_path, 1, 2, 3)
    assert_is_of(restore(tmp_path), 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


@pytest.mark.parametrize("damage", ["a bit flipped", "cut", "history changed", "a file gone"])
def test_a_damaged_epoch_is_left_for_the_one_before(tmp_path, caplog, capfd, damage):
    save(tmp_path, 1, 2)
    if damage == "a bit flipped":
        flip(largest_file(tmp_path / "2"), 1000, 3)
    elif damage == "cut":
        largest_file(tmp_path / "2").write_bytes(b"")
    elif damage == "a file gone":
        largest_file(tmp_path / "2").unlink()
    else:
        path = tmp_path / "2" / "history" / "metadata"
        path.write_text(path.read_text().replace("0.5", "0.6"))
    assert_is_of(restore(tmp_path), 1)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "mnist_jax"]
    assert f"{tmp_path / '2'} cannot be restored" in warning
    assert "the one before is taken instead" in warning
    assert capfd.readouterr().err == ""
    save(tmp_path, 2)
    assert_is_of(restore(tmp_path), 2)


def test_with_every_epoch_damaged_it_stops_and_deletes_nothing(tmp_path):
    save(tmp_path, 1, 2)
    for epoch in ("1", "2"):
        flip(largest_file(tmp_path / epoch), 1000, 0)
    with pytest.raises(UserError, match=r"/2 cannot be restored .*; delete .* to train from the"):
        restore(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


# A read that fails cancels the others, and tensorstore may tell so an event loop that has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_damage_gives_other_weights(tmp_path, capfd):
    """Every file of a checkpoint, each cut and with bits flipped at random places."""
    save_released(tmp_path, arrays(1), {})
    rng, outcomes = random.Random(0), []
    for path in files_of(tmp_path):
        content = path.read_bytes()
        for attempt in range(8):
            if attempt < 2:
                path.write_bytes(content[: rng.randrange(len(content))])
            else:
                flip(path, rng.randrange(len(content)), rng.randrange(8))
            try:
                params, _ = load_released(tmp_path, arrays(1), {})
            except UserError as error:
                assert "checkpoint cannot be restored" in str(error)
                outcomes.append("refused")
            else:
                for one, other in zip(*map(jax.tree.leaves, (params, arrays(1))), strict=True):
                    np.testing.assert_array_equal(one, other)
                outcomes.append("harmless")
            path.write_bytes(content)
    assert outcomes.count("refused") > 30  # much of the rest is times and names that nobody reads
    assert capfd.readouterr().err == ""


def test_weights_without_a_sum_are_refused(tmp_path):
    save_released(tmp_path, arrays(1), {})
    path = tmp_path / "models" / "checkpoint" / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"custom_metadata": {}}))
    with pytest.raises(UserError, match="do not have the SHA-256 that was written with them"):
        load_released(tmp_path, arrays(1), {})


def test_what_cannot_be_written_is_named_and_is_no_hindrance_later(tmp_path, capfd):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # stands for a disk that is full
    try:
        with pytest.raises(UserError, match=r"cannot write .*/checkpoint: File too large; make"):
            save_released(tmp_path, arrays(1), {})
        with pytest.raises(UserError, match=r"cannot write .*/training: File too large; make room"):
            save(tmp_path / "training", 1, 2)
        with pytest.raises(KeyError), TrainingCheckpoints(tmp_path / "training") as checkpoints:
            checkpoints.save(1, arrays(1), history(1))
            raise KeyError  # what went wrong first is what is told
        with (
            pytest.raises(UserError, match=r"cannot write .*/training: File too large"),
            TrainingCheckpoints(tmp_path / "training") as checkpoints,
        ):
            checkpoints.save(1, arrays(1), history(1))
            raise KeyboardInterrupt
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert capfd.readouterr().err == ""
    save_released(tmp_path, arrays(1), {})
    load_released(tmp_path, arrays(1), {})
    save(tmp_path / "training", 1)
    assert_is_of(restore(tmp_path / "training"), 1)
