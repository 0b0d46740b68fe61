import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.config import OPTIMIZER_IDS, SCHEDULE_IDS
from mnist_jax.training.optimizers import make_optimizer, make_schedule, moving_average


def schedule_of(schedule_id, learning_rate, num_steps):
    return make_schedule(
        schedule_id, learning_rate, num_steps=num_steps, steps_per_epoch=10, decay=0.5, floor=0.01
    )


@pytest.mark.parametrize("schedule_id", SCHEDULE_IDS)
def test_no_schedule_exceeds_the_learning_rate_and_each_reaches_it(schedule_id):
    schedule = schedule_of(schedule_id, 0.1, 100)
    rates = np.array([schedule(step) for step in range(101)])
    assert rates.max() == pytest.approx(0.1)
    assert (rates >= 0).all()


def test_cosine_is_half_way_down_half_way_through():
    schedule = schedule_of("cosine", 0.1, 100)
    assert float(schedule(50)) == pytest.approx(0.05)
    assert float(schedule(100)) == pytest.approx(0.0, abs=1e-9)


def test_one_cycle_peaks_after_three_tenths():
    rates = [float(schedule_of("one_cycle", 0.1, 100)(step)) for step in range(101)]
    assert int(np.argmax(rates)) == 30
    assert rates[0] == pytest.approx(0.1 / 25)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_exponential_falls_by_its_decay_over_an_epoch_and_not_below_the_floor(decay):
    schedule = make_schedule(
        "exponential", 0.1, num_steps=100, steps_per_epoch=10, decay=decay, floor=0.01
    )
    rates = [float(schedule(step)) for step in range(101)]
    np.testing.assert_allclose(
        rates, [max(0.01, 0.1 * decay ** (n / 10)) for n in range(101)], rtol=1e-5
    )


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
    schedule = schedule_of("constant", 0.1, 4)
    plain = make_optimizer("adam", schedule, weight_decay=0.0, momentum=0.0)
    decayed = make_optimizer("adamw", schedule, weight_decay=0.2, momentum=0.0)
    assert run(plain, GRADIENTS) == pytest.approx(adam(GRADIENTS, 0.1), rel=1e-5)
    assert run(decayed, GRADIENTS) == pytest.approx(adam(GRADIENTS, 0.1, decay=0.2), rel=1e-5)


def test_sgd_with_momentum_adds_up_a_decaying_sum():
    optimizer = make_optimizer(
        "sgd", schedule_of("constant", 0.1, 4), weight_decay=0.0, momentum=0.5
    )
    x, velocity = 1.0, 0.0
    for gradient in GRADIENTS:
        velocity = 0.5 * velocity + gradient
        x -= 0.1 * velocity
    assert run(optimizer, GRADIENTS) == pytest.approx(x, rel=1e-5)


@pytest.mark.parametrize("optimizer_id", OPTIMIZER_IDS)
def test_every_id_that_the_config_knows_descends(optimizer_id):
    schedule = schedule_of("constant", 0.01, 10)
    optimizer = make_optimizer(optimizer_id, schedule, weight_decay=0.0, momentum=0.0)
    assert run(optimizer, [1.0] * 10) < 1.0


def test_the_rate_falls_by_its_factor_each_epoch_and_stops_at_the_floor():
    schedule = make_schedule(
        "exponential", 0.001, num_steps=1, steps_per_epoch=500, decay=0.98, floor=1e-4
    )
    assert float(schedule(0)) == pytest.approx(0.001)
    assert float(schedule(500)) == pytest.approx(0.00098)
    assert float(schedule(250)) == pytest.approx(0.001 * 0.98**0.5)
    assert float(schedule(500 * 100)) == pytest.approx(0.001 * 0.98**100, rel=1e-5)
    assert float(schedule(500 * 200)) == pytest.approx(1e-4)


def test_the_moving_average_weighs_the_past_by_powers_of_the_decay():
    sets = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    average = {"w": jnp.zeros(3)}
    for count, weights in enumerate(sets, start=1):
        average = jax.jit(moving_average, static_argnums=3)(
            average, {"w": jnp.array(weights)}, jnp.int32(count), 0.9
        )
        powers = 0.9 ** np.arange(count)[::-1]
        expected = (powers[:, None] * sets[:count]).sum(axis=0) / powers.sum()
        np.testing.assert_allclose(average["w"], expected, rtol=1e-4, atol=1e-5)


def test_the_moving_average_of_constants_is_the_constant():
    average = jnp.zeros(2)
    for count in range(1, 2000):
        average = moving_average(average, jnp.array([3.0, -7.0]), jnp.int32(count), 0.999)
    np.testing.assert_allclose(average, [3.0, -7.0], rtol=1e-6)
