import signal

import pytest

from mnist_jax.errors import Terminated
from mnist_jax.training.signals import deferred

pytestmark = pytest.mark.usefixtures("signals_of_the_program")


def test_a_signal_waits_to_be_asked_for():
    with deferred(is_wanted=True) as stop:
        assert not stop.is_asked
        stop.now()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_asked
        with pytest.raises(Terminated):
            stop.now()
    with pytest.raises(Terminated):  # as before
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_nobody_acted_on_acts_at_the_end():
    with pytest.raises(Terminated), deferred(is_wanted=True):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyError), deferred(is_wanted=True):
        signal.raise_signal(signal.SIGTERM)
        raise KeyError  # what went wrong first is what is told


def test_a_second_signal_does_not_wait():
    with deferred(is_wanted=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) as stopped:
            signal.raise_signal(signal.SIGINT)
        assert stopped.type is KeyboardInterrupt
        with pytest.raises(Terminated):
            stop.now()


def test_where_it_is_not_wanted_and_of_what_python_does_not_handle_nothing_is_deferred():
    with deferred(is_wanted=False), pytest.raises(Terminated):
        signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with deferred(is_wanted=True):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
