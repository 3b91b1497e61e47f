"""Reptile: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_task import (
    MODEL,
    OPTIONS,
    TASK,
    W,
    X,
    Y,
    adapted,
    close,
    descended,
    loss_of,
    query_loss,
    slope,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_reptile_moves_by_the_displacement():
    learner = jm.reptile(MODEL, inner_lr=0.1, **OPTIONS)
    w = W
    for _ in range(3):
        w = w - 0.1 * slope(w)
    params = learner.init(jax.random.key(0))
    (value, _), move = descended(learner, params)
    close(move["kernel"], W - w)
    close(value, query_loss(w))
    close(loss_of(learner, params), query_loss(w))
    # with plain SGD of rate epsilon outside that is algorithm 1
    step = jm.make_step(learner, optax.sgd(0.25))
    state = jm.init_state(learner, optax.sgd(0.25), jax.random.key(0))
    state, _ = step(state, jax.tree.map(lambda a: a[None], TASK), jax.random.key(0))
    close(state.params["kernel"], W + 0.25 * (w - W))


def test_reptile_minibatches_are_passes_through_the_support_set():
    learner = jm.reptile(
        MODEL, inner_lr=0.1, inner_steps=4, inner_batch=3, loss=jm.losses.mse
    )
    key = jax.random.key(3)
    halves = jax.random.split(jax.random.key(3), 2)  # a key is used once
    order = jax.jit(lambda key: jax.random.permutation(key, 6))
    orders = [order(k) for k in halves]
    w = W
    for chosen in np.concatenate(orders).reshape(4, 3):
        w = w - 0.1 * slope(w, X[chosen], Y[chosen])
    close(adapted(learner, {"kernel": jnp.asarray(W)}, key)["kernel"], w)
    with pytest.raises(ValueError, match="inner_batch: 7 examples .* support set of 6"):
        jm.reptile(MODEL, inner_batch=7, loss=jm.losses.mse).adapt(
            {"kernel": jnp.asarray(W)}, TASK.support
        )


def test_reptile_does_not_draw_from_padding():
    padded = TASK.support._replace(mask=np.ones(6))
    with pytest.raises(ValueError, match="inner_batch: a padded support set"):
        jm.reptile(MODEL, inner_batch=3, loss=jm.losses.mse).adapt(
            {"kernel": W}, padded
        )
