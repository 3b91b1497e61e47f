"""The reader: targets see a support set, whose states do not depend on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.models.attention import block


@pytest.mark.usefixtures("x64")
def test_targets_see_the_support_set_alone():
    model = jm.models.reader(3, width=4, heads=2, hidden=5, layers=2)
    params = jax.tree.map(jnp.float64, model.init(jax.random.key(0)))
    random = np.random.default_rng(0)
    tokens, targets = (jnp.asarray(random.normal(size=(n, 4))) for n in (5, 3))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    states = model.encode(params, tokens)
    assert states.shape == (2, 5, 4)
    y = model.read(params, states, targets)
    close(model.read(params, states, targets[1:2]), y[1:2])
    close(model.read(params, model.encode(params, tokens[::-1]), targets), y)
    mask = jnp.array([1, 1, 1, 0, 0])
    masked = model.read(params, model.encode(params, tokens, mask), targets, mask)
    close(masked, model.read(params, model.encode(params, tokens[:3]), targets))
    # a target that is also a token goes through the same blocks
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"][None]
    h = tokens
    for name in ("blocks_0", "blocks_1"):  # see test_attention
        h = block(params[name], h, h, 2)
    h = jnp.maximum(dense("head_hidden", h), 0)
    close(model.read(params, states, tokens), dense("head", h))
