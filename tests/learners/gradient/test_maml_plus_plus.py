"""MAML++: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import (
    MODEL,
    OPTIONS,
    TASK,
    XQ,
    YQ,
    W,
    close,
    loss_of,
    numeric,
    query_loss,
    slope,
)

import jaxmeta as jm
from jaxmeta.learners.gradient.maml_plus_plus import _weights

pytestmark = pytest.mark.usefixtures("x64")


def test_maml_plus_plus():
    """Rates of each step, and the annealed loss over all steps."""
    learner = jm.maml_plus_plus(
        MODEL, multi_step_until=10, first_order_until=2, inner_lr=0.1, **OPTIONS
    )
    rates = np.array([0.05, 0.1, 0.2])

    def loss(w, rates, v):
        losses = []
        for rate in rates:
            w = w - rate * slope(w)
            losses.append(query_loss(w))
        return np.dot(v, losses)

    params = learner.init(jax.random.key(0))
    params = params._replace(alpha={"kernel": jnp.asarray(rates)})

    f = lambda p, step: learner.objective(p, TASK, None, step)[0]
    compiled = jax.jit(jax.value_and_grad(f))
    at = lambda step: compiled(params, jnp.asarray(step))

    for step, v in ((5, [1 / 6, 1 / 6, 2 / 3]), (10, [0, 0, 1]), (99, [0, 0, 1])):
        value, found = at(step)
        close(value, loss(W, rates, v))
        close(found.theta["kernel"], numeric(lambda w, v=v: loss(w, rates, v), W))
        close(found.alpha["kernel"], numeric(lambda r, v=v: loss(W, r, v), rates))
    # first order: the query gradients, for W and along the way for the rates
    value, found = at(1)
    v, w, total = np.array([0.3, 0.3, 0.4]), W, np.zeros_like(W)
    for k, rate in enumerate(rates):
        w = w - rate * slope(w)
        total += v[k] * slope(w, XQ, YQ)
    close(value, loss(W, rates, v))
    close(found.theta["kernel"], total)
    close(loss_of(learner, params), loss(W, rates, [0, 0, 1]))


def test_maml_plus_plus_weights_are_annealed_to_the_last_step():
    weights = jax.jit(_weights, static_argnums=1)
    close(weights(0.0, 5), np.full(5, 0.2))
    close(weights(0.99, 5), [0.006] * 4 + [0.976])  # never below 3 % of the start
    close(weights(1.0, 5), [0, 0, 0, 0, 1])


def test_maml_plus_plus_has_norms_for_each_step_that_are_not_adapted():
    model = jm.models.conv4(3, widths=4)
    learner = jm.maml_plus_plus(model, inner_steps=2)
    params = learner.init(jax.random.key(0))
    assert params.norms["norm1"]["scale"].shape == (2, 4)
    assert not any(name.startswith("norm") for name in params.theta)
    support = jm.Batch(np.ones((3, 28, 28, 1)), np.arange(3))
    adapted = jax.jit(learner.adapt)(params, support)
    np.testing.assert_array_equal(
        adapted["norm1"]["scale"], np.asarray(params.norms["norm1"]["scale"])[1]
    )
