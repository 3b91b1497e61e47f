"""Layers against XLA's and Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.models import layers


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def second_order(f, *args):
    """Value, gradient and a gradient of the gradient, as one list of arrays."""
    gradient = jax.grad(lambda args: jnp.sum(jnp.sin(f(*args)) ** 2))
    again = jax.grad(
        lambda args: sum(jnp.sum(g**3) for g in jax.tree.leaves(gradient(args)))
    )
    every = jax.jit(lambda args: (f(*args), gradient(args), again(args)))
    return jax.tree.leaves(jax.device_get(every(args)))


def assert_same(ours, theirs, tolerance=1e-10):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 7), (8, 6)])
def test_conv_is_xlas_to_second_order(x64, stride, size):
    x, kernel = normal(0, *size, 2, 3), normal(1, 3, 3, 3, 5)
    conv = lambda method: (
        lambda x, kernel: layers.conv3x3(x, kernel, stride=stride, method=method)
    )
    theirs = second_order(conv("lax"), x, kernel)
    for method in ("patches", "winograd"):
        assert_same(second_order(conv(method), x, kernel), theirs)


def test_conv_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="'winograd' or 'lax', got 'fft'"):
        layers.conv3x3(normal(0, 7, 7, 2, 3), normal(1, 3, 3, 3, 5), method="fft")


@pytest.mark.slow
@pytest.mark.parametrize(  # fewer and more outputs than numbers a patch
    ("out", "pool", "mask"),
    [
        (8, True, [1, 0, 1]),
        (8, False, None),
        (10, True, None),
        (10, True, [1, 0, 1]),
        (10, False, [1, 0, 1]),
    ],
)
def test_block_is_its_parts(x64, mask, pool, out):
    x, kernel = normal(0, 6, 5, 3, 1), normal(1, 3, 3, 1, out)
    scale, offset = normal(2, out), normal(3, out)
    mask = None if mask is None else np.array(mask)
    stride = 1 if pool else 2

    def parts(x, kernel, scale, offset):
        y = layers.conv3x3(x, kernel, stride=stride, method="lax")
        y = nn.relu(layers.batch_norm(y, scale, offset, mask))
        return layers.max_pool2x2(y) if pool else y

    def block(*arguments):
        return layers.conv_block(*arguments, mask, stride=stride, pool=pool)

    arguments = (x, kernel, scale, offset)
    assert_same(second_order(block, *arguments), second_order(parts, *arguments), 1e-8)


@pytest.mark.parametrize("size", [6, 7])
def test_max_pool_is_flaxs_to_second_order(x64, size):
    x = normal(0, size, size, 2, 3)
    nhwc = lambda x: jnp.transpose(x, (2, 0, 1, 3))
    flaxs = lambda x: nn.max_pool(nhwc(x), (2, 2), (2, 2))
    ours = lambda x: nhwc(layers.max_pool2x2(x))
    assert_same(second_order(ours, x), second_order(flaxs, x), 1e-12)


def test_max_pool_gives_ties_to_the_first():
    x = np.ones((2, 2, 1, 1), np.float32)
    gradient = jax.jit(jax.grad(lambda x: layers.max_pool2x2(x).sum()))(x)
    assert np.asarray(gradient)[:, :, 0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_batch_norm_is_flaxs(x64):
    x, scale, offset = normal(0, 3, 3, 4, 5), normal(1, 5), normal(2, 5)
    flax = nn.BatchNorm(use_running_average=False, epsilon=1e-5)

    @jax.jit
    def theirs(x):
        variables = flax.init(jax.random.key(0), x)
        variables = {**variables, "params": {"scale": scale, "bias": offset}}
        return flax.apply(variables, x, mutable=["batch_stats"])[0]

    norm = jax.jit(layers.batch_norm)
    ours = norm(x, scale, offset)
    np.testing.assert_allclose(ours, theirs(x), rtol=1e-6, atol=1e-6)
    mask, kept, spoilt = np.array([1, 0, 1, 1]), np.array([0, 2, 3]), x.copy()
    spoilt[:, :, 1] = 1e3
    masked = np.asarray(norm(spoilt, scale, offset, mask))
    alone = norm(x[:, :, kept], scale, offset)
    np.testing.assert_allclose(masked[:, :, kept], alone, rtol=1e-10)


def test_dense_and_layer_norm_are_flaxs(x64):
    x, params = normal(0, 4, 3), {"kernel": normal(1, 3, 5), "bias": normal(2, 5)}
    theirs = jax.jit(nn.Dense(5).apply)({"params": params}, x)
    np.testing.assert_allclose(jax.jit(layers.dense)(params, x), theirs, rtol=1e-12)
    norm = {"scale": normal(3, 3), "bias": normal(4, 3)}
    theirs = jax.jit(nn.LayerNorm().apply)({"params": norm}, x)
    np.testing.assert_allclose(jax.jit(layers.layer_norm)(norm, x), theirs, rtol=1e-12)


def test_layer_norm_counts_in_single_precision():
    """Rows of half precision around 100, whose squares it could not tell apart."""
    norm = {"scale": np.ones(64, jnp.bfloat16), "bias": np.zeros(64, jnp.bfloat16)}
    x = (100 + 4 * normal(0, 2, 64)).astype(jnp.bfloat16)
    wide = x.astype(np.float32)
    expected = (wide - wide.mean(axis=1, keepdims=True)) / wide.std(axis=1)[:, None]
    ours = np.asarray(jax.jit(layers.layer_norm)(norm, x))
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(np.float32), expected, rtol=0.01, atol=0.01)
