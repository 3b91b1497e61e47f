"""The reader: targets see a support set, whose states do not depend on them."""

import jax
import numpy as np
import pytest
from problems import double

import jaxmeta as jm
from jaxmeta.models.attention import block


@pytest.mark.usefixtures("x64")
def test_targets_see_the_support_set_alone():
    model = jm.models.reader(3, width=4, heads=2, hidden=5, layers=2)
    params = jax.device_get(double(model.init(jax.random.key(0))))
    random = np.random.default_rng(0)
    tokens, targets = (random.normal(size=(n, 4)) for n in (5, 3))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    encode, read = jax.jit(model.encode), jax.jit(model.read)
    states = encode(params, tokens)
    assert states.shape == (2, 5, 4)
    y = np.asarray(read(params, states, targets))
    close(read(params, states, targets[1:2]), y[1:2])
    close(read(params, encode(params, tokens[::-1]), targets), y)
    mask = np.array([1, 1, 1, 0, 0])
    masked = read(params, encode(params, tokens, mask), targets, mask)
    close(masked, read(params, encode(params, tokens[:3]), targets))
    # a target that is also a token goes through the same blocks
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"][None]
    h, attend = tokens, jax.jit(block, static_argnums=3)
    for name in ("blocks_0", "blocks_1"):  # see test_attention
        h = np.asarray(attend(params[name], h, h, 2))
    h = np.maximum(dense("head_hidden", h), 0)
    close(read(params, states, tokens), dense("head", h))
