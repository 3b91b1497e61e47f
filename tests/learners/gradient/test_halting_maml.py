"""Halting in the inner loop: Graves' equations in numpy, and what halting must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import MODEL, TASK, W, query_loss, slope

import jaxmeta as jm
from jaxmeta.learners.gradient.halting_maml import halted

STEPS, RATE, COST = 4, 0.1, 0.3
LEARNER = jm.halting_maml(
    MODEL, inner_lr=RATE, inner_steps=STEPS, ponder_weight=COST, loss=jm.losses.mse
)
A, B = -0.4, np.array([-0.9, -0.4, 0.3, 0.3])


def by_hand(w, a, b):
    """Objective and N, by Graves' equations 5 to 12, in loops."""
    path, h = [], []
    for n in range(STEPS):
        w = w - RATE * slope(w)
        fit = np.mean(np.square(TASK.support.x @ w - TASK.support.y))
        path.append(w)
        h.append(1 / (1 + np.exp(-(a * np.log(fit + 1e-8) + b[n]))))
    number = next((n for n in range(1, STEPS) if sum(h[:n]) >= 0.99), STEPS)
    rest = 1 - sum(h[: number - 1])
    weights = [*h[: number - 1], rest]
    mean = sum(p * w for p, w in zip(weights, path, strict=False))
    return query_loss(mean) + COST * (number + rest), number


def numeric(f, x, h=1e-6):
    nudge = lambda i: h * (np.arange(x.size) == i).reshape(x.shape)
    slopes = [f(x + nudge(i)) - f(x - nudge(i)) for i in range(x.size)]
    return np.reshape(slopes, x.shape) / (2 * h)


def test_objective_and_gradient_beside_loops_and_finite_differences(x64):
    params = LEARNER.init(jax.random.key(0))._replace(
        theta={"kernel": jnp.asarray(W)}, a=jnp.asarray(A), b=jnp.asarray(B)
    )
    both = jax.jit(jax.value_and_grad(
        lambda p: LEARNER.objective(p, TASK, None, 0), has_aux=True))  # fmt: skip
    (value, metrics), g = both(params)
    wanted, number = by_hand(W, A, B)
    assert number == 3 == int(metrics["steps"])
    np.testing.assert_allclose(value, wanted, rtol=1e-10)
    of = lambda w, a, b: by_hand(w, a, b)[0]
    np.testing.assert_allclose(
        g.theta["kernel"], numeric(lambda w: of(w, A, B), W), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        g.a, numeric(lambda a: of(W, a, B), np.array(A)), rtol=1e-6
    )
    np.testing.assert_allclose(
        g.b, numeric(lambda b: of(W, A, b), B), rtol=1e-6, atol=1e-9
    )
    assert g.b[3] == 0  # it has halted before


@pytest.mark.parametrize("n", [2, 4])
def test_halting_fixed_at_a_step_is_so_many_steps_bit_for_bit(n):
    model = jm.models.mlp(hidden=(8,))
    options = {"inner_lr": 0.01, "loss": jm.losses.mse}
    learner = jm.halting_maml(model, inner_steps=STEPS, **options)
    plain = jm.maml(model, inner_steps=n, **options)
    task = jm.tasks.sinusoid(5, 5).sample(jax.random.key(0))
    params = learner.init(jax.random.key(1))
    b = jnp.where(jnp.arange(STEPS) == n - 1, jnp.inf, -jnp.inf)
    found = learner.adapt(params._replace(b=b), task.support)
    for a, b in zip(
        *map(jax.tree.leaves, (found, plain.adapt(params.theta, task.support))),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_what_is_after_the_halt_may_be_anything():
    h = jnp.array([0.2, 0.9, jnp.nan, 0.5])
    p, steps, rest = jax.jit(halted)(h)
    np.testing.assert_allclose(p, [0.2, 0.8, 0, 0], rtol=1e-6)
    assert steps == 2 and rest == pytest.approx(0.8)
    assert np.isnan(jnp.stack(halted(h.at[1].set(jnp.nan))[1:])).all()
    p, steps, rest = halted(jnp.full(3, 0.1))  # never enough: all steps
    np.testing.assert_allclose(p, [0.1, 0.1, 0.8], rtol=1e-6)


def test_parameters_of_other_steps_are_refused():
    other = jm.halting_maml(MODEL, inner_steps=2, loss=jm.losses.mse)
    with pytest.raises(ValueError, match="inner_steps: these parameters halt within 2"):
        LEARNER.adapt(other.init(jax.random.key(0)), TASK.support)
