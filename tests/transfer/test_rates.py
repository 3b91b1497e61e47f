"""Rates by depth, and the pull towards the start."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import transfer

pytestmark = pytest.mark.usefixtures("x64")
LAYERS = (("conv1", "norm1"), ("conv2", "norm2"), "head")
RATES = {"conv1": 0.25, "norm1": 0.25, "conv2": 0.5, "norm2": 0.5, "head": 1.0}


def quadratic(names=tuple(RATES)):
    """Parameters, and gradients of them."""
    random = np.random.default_rng(0)
    draw = lambda: {name: {"w": jnp.asarray(random.normal(size=3))} for name in names}
    return draw(), [draw() for _ in range(3)]


@pytest.mark.parametrize("names", [tuple(RATES), ("head", "norm1")])
def test_each_layer_moves_with_its_own_rate(names):
    """Whether all layers move or some, Adam's step is that of its layer alone."""
    w, gradients = quadratic(names)
    rule = transfer.by_depth(optax.adam(0.1), 0.5, LAYERS)
    state, alone = rule.init(w), {n: optax.adam(0.1 * RATES[n]) for n in names}
    states = {n: alone[n].init(w[n]) for n in names}
    for g in gradients:
        updates, state = rule.update(g, state, w)
        for name in names:
            wanted, states[name] = alone[name].update(g[name], states[name], w[name])
            np.testing.assert_allclose(updates[name]["w"], wanted["w"], rtol=1e-12)


def test_the_start_is_what_init_saw():
    w_0, (g, *_) = quadratic()
    rule = transfer.l2_sp(0.5)
    state = rule.init(w_0)
    w = jax.tree.map(lambda a: a + 2.0, w_0)
    pulled, state = rule.update(g, state, w)
    for name in w:
        np.testing.assert_allclose(pulled[name]["w"], g[name]["w"] + 1.0, rtol=1e-12)
    still, _ = rule.update(g, state, w_0)
    jax.tree.map(np.testing.assert_array_equal, still, g)


BAD = [
    (lambda: transfer.l2_sp(-1), "weight: expected a number >= 0, got -1"),
    (lambda: transfer.by_depth(optax.sgd(1), 0, LAYERS), r"decay: expected a number in \("),
    (lambda: transfer.by_depth(optax.sgd(1), 2, LAYERS), r"decay: .* \(0, 1\], got 2"),
    (lambda: transfer.by_depth(0.1, 0.5, LAYERS), "optimizer: expected an optax"),
    (lambda: transfer.by_depth(optax.sgd(1), 0.5, "head"), "layers: .* got 'head'"),
    (lambda: transfer.by_depth(optax.sgd(1), 0.5, ("a", "a")), "layers: .* each once"),
    (lambda: transfer.by_depth(optax.sgd(1), 0.5, ()), r"layers: .* got \(\)"),
    (lambda: transfer.by_depth(optax.sgd(1), 0.5, LAYERS).init({"neck": jnp.ones(2)}),
     "layers: expected a depth for each layer .* got none for neck; known are conv1"),
    (lambda: transfer.by_depth(optax.sgd(1), 0.5, LAYERS).init([jnp.ones(2)]),
     "layers: expected a depth for each layer of a dict .* none for type list"),
    (lambda: transfer.l2_sp(1.0).update(1.0, transfer.l2_sp(1.0).init(1.0)), "l2_sp: exp"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_what_makes_no_sense_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
