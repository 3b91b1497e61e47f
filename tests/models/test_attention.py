"""Attention against loops over heads and queries, and against Flax's layers."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from problems import double, naive_attention

from jaxmeta.models import attention, parameters

pytestmark = pytest.mark.usefixtures("x64")


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_attention_is_a_loop():
    random = np.random.default_rng(0)
    q, k, v = (random.normal(size=(n, 2, 3)) for n in (4, 5, 5))
    see = random.random((4, 5)) < 0.6
    see[:, 0] = True
    attend = jax.jit(attention.attention)
    ours = np.asarray(attend(q, k, v, see))
    for head in range(2):
        expected = naive_attention(q[:, head], k[:, head], v[:, head], see)
        close(ours[:, head], expected)
    nothing = attend(q, k, v, np.zeros(5))
    assert not np.asarray(nothing).any()
    whole = np.asarray(attend(q, k, v))
    close(whole[:, 1], naive_attention(q[:, 1], k[:, 1], v[:, 1], see | True))


def random_layer(description):
    """Parameters none of which is 0 or 1."""
    random = np.random.default_rng(1)
    fill = jax.jit(lambda key: parameters.fill(description, key))
    params = jax.device_get(double(fill(jax.random.key(0))))
    return jax.tree.map(lambda a: a + 0.1 * random.normal(size=a.shape), params)


def in_flax(params, heads):
    """Parameters of `multi_head` as those of Flax's attention, by heads."""
    split = lambda a: np.reshape(a, (*a.shape[:-1], heads, -1))
    layers = {n: jax.tree.map(split, params[n]) for n in ("query", "key", "value")}
    kernel = np.reshape(
        params["out"]["kernel"], (heads, -1, params["out"]["bias"].size)
    )
    return layers | {"out": {"kernel": kernel, "bias": params["out"]["bias"]}}


def test_multi_head_attention_is_flaxs():
    random = np.random.default_rng(0)
    q, k, v = (random.normal(size=s) for s in ((4, 3), (5, 2), (5, 7)))
    params = random_layer(attention.multi_head_parameters(6, 3, 2, 7))
    mask = np.array([1, 0, 1, 1, 0])
    module = nn.MultiHeadDotProductAttention(2, qkv_features=6, out_features=6)
    see = np.broadcast_to(mask > 0, (1, 4, 5))
    theirs = jax.jit(module.apply)({"params": in_flax(params, 2)}, q, k, v, mask=see)
    ours = jax.jit(attention.multi_head, static_argnums=4)(params, q, k, v, 2, mask)
    close(ours, theirs)


def test_a_block_is_attention_and_two_dense_layers():
    random = np.random.default_rng(0)
    x, context = (random.normal(size=(n, 4)) for n in (3, 5))
    params = random_layer(attention.block_parameters(4, 7))
    part = lambda module, name, *inputs: module.apply({"params": params[name]}, *inputs)
    looks = nn.MultiHeadDotProductAttention(2, qkv_features=4, out_features=4)

    @jax.jit
    def both(x, context):
        y = looks.apply({"params": in_flax(params["attention"], 2)}, x, context)
        z = part(nn.LayerNorm(), "norm1", x + y)
        y = part(nn.Dense(4), "dense2", nn.relu(part(nn.Dense(7), "dense1", z)))
        theirs = part(nn.LayerNorm(), "norm2", z + y)
        return attention.block(params, x, context, 2), theirs

    close(*both(x, context))
