"""The transformer over a batch: order, padding, and its parts one after the other."""

import jax
import numpy as np
import pytest
from problems import double

import jaxmeta as jm
from jaxmeta.models.attention import block


@pytest.mark.usefixtures("x64")
def test_examples_look_at_each_other_in_no_order():
    model = jm.models.transformer((2, 3), 4, width=8, heads=2, layers=2)
    params = jax.device_get(double(model.init(jax.random.key(0))))
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    compiled = jax.jit(lambda x, mask=None: model.apply(params, x, mask))
    run = lambda *given: np.asarray(compiled(*given))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    y = run(x)
    assert y.shape == (5, 4)
    close(run(x[::-1]), y[::-1])
    spoilt = np.concatenate([x[:4], np.full((1, 2, 3), 9.0)])
    close(run(spoilt, np.array([1, 1, 1, 1, 0]))[:4], run(x[:4]))
    assert np.abs(run(spoilt) - y)[:4].min() > 1e-6
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"][None]
    h, attend = dense("embed", np.reshape(x, (5, 6))), jax.jit(block, static_argnums=3)
    for name in ("block1", "block2"):  # see test_attention
        h = np.asarray(attend(params[name], h, h, 2))
    close(y, dense("head", h))
