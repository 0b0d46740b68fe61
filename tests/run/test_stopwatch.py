import pytest

from mnist_jax.run import stopwatch as phases_module
from mnist_jax.run.stopwatch import FIRST_STEP, TRAINING, Phases


@pytest.fixture
def read(monkeypatch):
    """A stopwatch of which the parts given have taken the seconds given."""

    def read(**seconds):
        times = [100.0]
        monkeypatch.setattr(phases_module.time, "perf_counter", lambda: times[-1])
        phases = Phases()
        for name, value in seconds.items():
            times.append(times[-1] + value)
            phases.end(name.replace("_", " "))
        return phases

    return read


def test_it_tells_the_way_to_the_first_step_training_and_the_way_to_the_verdict(read):
    phases = read(imports=1.25, data=0.5, first_step=2.0, training=60.0, evaluation=0.5, card=0.25)
    assert list(phases.seconds) == ["imports", "data", FIRST_STEP, TRAINING, "evaluation", "card"]
    assert str(phases) == (
        "3.8 s to the first step (imports 1.2, data 0.5, first step 2.0), 60.0 s of training, "
        "0.8 s to the verdict (evaluation 0.5, card 0.2)"
    )


def test_without_training_there_is_only_the_way_to_the_verdict(read):
    assert str(read(export=1.0, card=0.5)) == "1.5 s to the verdict (export 1.0, card 0.5)"
