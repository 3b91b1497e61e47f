"""The transformer over a batch: order, padding, and its parts one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.models.attention import block


@pytest.mark.usefixtures("x64")
def test_examples_look_at_each_other_in_no_order():
    model = jm.models.transformer((2, 3), 4, width=8, heads=2, layers=2)
    params = jax.tree.map(jnp.float64, model.init(jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3)))
    run = jax.jit(lambda x, mask=None: model.apply(params, x, mask))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    y = run(x)
    assert y.shape == (5, 4)
    close(run(x[::-1]), y[::-1])
    close(run(x.at[4].set(9.0), jnp.array([1, 1, 1, 1, 0]))[:4], run(x[:4]))
    assert jnp.abs(run(x.at[4].set(9.0)) - y)[:4].min() > 1e-6
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"][None]
    h = dense("embed", jnp.reshape(x, (5, 6)))
    for name in ("block1", "block2"):  # see test_attention
        h = block(params[name], h, h, 2)
    close(y, dense("head", h))
