import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.config import OPTIMIZER_IDS, SCHEDULE_IDS
from mnist_jax.optimizers import make_optimizer, make_schedule


@pytest.mark.parametrize("schedule_id", SCHEDULE_IDS)
def test_no_schedule_exceeds_the_learning_rate_and_each_reaches_it(schedule_id):
    schedule = make_schedule(schedule_id, 0.1, 100)
    rates = np.array([schedule(step) for step in range(101)])
    assert rates.max() == pytest.approx(0.1)
    assert (rates >= 0).all()


def test_cosine_is_half_way_down_half_way_through():
    schedule = make_schedule("cosine", 0.1, 100)
    assert float(schedule(50)) == pytest.approx(0.05)
    assert float(schedule(100)) == pytest.approx(0.0, abs=1e-9)


def test_one_cycle_peaks_after_three_tenths():
    rates = [float(make_schedule("one_cycle", 0.1, 100)(step)) for step in range(101)]
    assert int(np.argmax(rates)) == 30
    assert rates[0] == pytest.approx(0.1 / 25)


def adam(gradients, rate, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.0):
    """Kingma and Ba 2015, algorithm 1, with Loshchilov and Hutter's decoupled decay, in float64."""
    x, m, v = 1.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        x -= rate * (step + decay * x)
    return x


def run(optimizer, gradients):
    x = jnp.float32(1)
    state = optimizer.init(x)
    for gradient in gradients:
        update, state = optimizer.update(jnp.float32(gradient), state, x)
        x = x + update
    return float(x)


GRADIENTS = [0.5, -2.0, 0.1, 3.0]


def test_adam_and_adamw_are_the_papers():
    schedule = make_schedule("constant", 0.1, 4)
    plain = make_optimizer("adam", schedule, weight_decay=0.0, momentum=0.0)
    decayed = make_optimizer("adamw", schedule, weight_decay=0.2, momentum=0.0)
    assert run(plain, GRADIENTS) == pytest.approx(adam(GRADIENTS, 0.1), rel=1e-5)
    assert run(decayed, GRADIENTS) == pytest.approx(adam(GRADIENTS, 0.1, decay=0.2), rel=1e-5)


def test_sgd_with_momentum_adds_up_a_decaying_sum():
    optimizer = make_optimizer(
        "sgd", make_schedule("constant", 0.1, 4), weight_decay=0.0, momentum=0.5
    )
    x, velocity = 1.0, 0.0
    for gradient in GRADIENTS:
        velocity = 0.5 * velocity + gradient
        x -= 0.1 * velocity
    assert run(optimizer, GRADIENTS) == pytest.approx(x, rel=1e-5)


@pytest.mark.parametrize("optimizer_id", OPTIMIZER_IDS)
def test_every_id_that_the_config_knows_descends(optimizer_id):
    schedule = make_schedule("constant", 0.01, 10)
    optimizer = make_optimizer(optimizer_id, schedule, weight_decay=0.0, momentum=0.0)
    assert run(optimizer, [1.0] * 10) < 1.0
