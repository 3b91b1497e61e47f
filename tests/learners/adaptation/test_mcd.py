"""MCD: the discrepancy, and its steps."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax
from two_domains import (
    BY_SGD,
    FEATURES,
    RATE,
    STEPS,
    agree,
    cross_entropy,
    slices,
    start,
    task,
)

import jaxmeta as jm
from jaxmeta.learners.adaptation.players import Player, in_turn, repeated

pytestmark = pytest.mark.usefixtures("x64")
MODULE = importlib.import_module("jaxmeta.learners.adaptation.mcd")


def test_the_discrepancy_is_the_mean_difference_of_probabilities():
    one, two = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = np.abs(softmax(one, axis=1) - softmax(two, axis=1)).mean(axis=1)
    d = jax.jit(MODULE.d)
    np.testing.assert_allclose(d(one, two), expected, rtol=1e-12)
    sure = np.array([[100.0, 0, 0]]), np.array([[0.0, 100, 0]])
    np.testing.assert_allclose(d(*sure), [2 / 3], rtol=1e-12)
    same, shifted = (np.asarray(d(one, other)) for other in (one, one + 3))
    assert (same == 0).all() and (shifted < 1e-15).all()


def linear():
    """G z = x A."""
    return jm.Model(
        lambda key: jax.random.normal(key, (2, FEATURES)), lambda a, x: x @ a
    )


def said(w, x):
    """Logits of both heads."""
    z = x @ w["encoder"]
    return [z @ w["heads"].w[i] + w["heads"].b[i][None] for i in range(2)]


def parts(w):
    """L_s and L_adv, from slices of the support set."""
    x_s, y_s, x_t = slices(task().support)
    l_s = sum(cross_entropy(logits, y_s) for logits in said(w, x_s))
    p_1, p_2 = (jax.nn.softmax(logits, axis=1) for logits in said(w, x_t))
    return l_s, 0.7 * jnp.mean(jnp.abs(p_1 - p_2))


def test_a_b_and_c_in_turn_by_hand():
    """An optimiser of G, one of the heads; each knows its own steps alone."""
    rule = partial(optax.adam, eps=1e-3)
    learner = jm.mcd(linear(), weight=0.7, repeats=2, **BY_SGD | {"rule": rule})
    w = params = start(learner)
    own = rule(RATE)
    state = {n: own.init(w[n]) for n in w}

    def step(objective, *names):
        @jax.jit
        def move(w, state):
            g, w, state = jax.grad(objective)(w), dict(w), dict(state)
            for n in names:
                update, state[n] = own.update(g[n], state[n], w[n])
                w[n] = optax.apply_updates(w[n], update)
            return w, state

        return move

    a = step(lambda w: parts(w)[0], "encoder", "heads")
    b = step(lambda w: parts(w)[0] - parts(w)[1], "heads")
    c = step(lambda w: parts(w)[1], "encoder")
    for move in (a, b, c, c) * STEPS:
        w, state = move(w, state)
    adapted = learner.adapt(params, task().support)
    agree(adapted.network.encoder, w["encoder"])
    agree(adapted.network.w, np.mean(w["heads"].w, axis=0))
    x = task().query.x
    one, two = map(np.asarray, jax.jit(said)(w, x))
    np.testing.assert_allclose(learner.predict(adapted, x), (one + two) / 2, rtol=1e-9)


def test_a_step_has_one_minibatch():
    """A, B and C see the same examples, and the next step others."""
    rows = jnp.array([[0, 1], [2, 3]])
    (progress, again), turn = repeated((jnp.array([0.0, 0.5]), rows), 3)
    assert again.tolist() == [[0, 1]] * 3 + [[2, 3]] * 3
    assert progress.tolist() == [0, 0, 0, 0.5, 0.5, 0.5]
    assert turn.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_rule_in_turn_has_derivatives_at_a_gradient_of_zero():
    """Adam divides by its root."""
    players = {"own": Player(("a",), lambda w, step: jnp.sum(w["a"]))}
    rule = in_turn(optax.adam, players, (("a",), ()))(0.1)

    def moved(g):
        w = {"own": {"a": jnp.ones(2)}}
        return jnp.sum(rule.update({"own": {"a": g}}, rule.init(w), w)[0]["own"]["a"])

    assert np.isfinite(jax.jit(jax.grad(moved))(jnp.zeros(2))).all()


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats: expected"):
        jm.mcd(linear(), repeats=0)
