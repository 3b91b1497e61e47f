"""Layers against XLA's and Flax's, and the adapters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmeta as jm
from jaxmeta.models import layers


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def second_order(f, *args):
    """Value, gradient and a gradient of the gradient, as one list of arrays."""
    gradient = jax.grad(lambda args: jnp.sum(jnp.sin(f(*args)) ** 2))
    again = jax.grad(
        lambda args: sum(jnp.sum(g**3) for g in jax.tree.leaves(gradient(args)))
    )
    return jax.tree.leaves((f(*args), gradient(args), again(args)))


def assert_same(ours, theirs, tolerance=1e-10):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * abs(b).max())


@pytest.mark.parametrize("method", ["patches", "winograd"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 7), (8, 6)])
def test_conv_is_xlas_to_second_order(x64, method, stride, size):
    x, kernel = normal(0, *size, 2, 3), normal(1, 3, 3, 3, 5)
    conv = lambda method: (
        lambda x, kernel: layers.conv3x3(x, kernel, stride=stride, method=method)
    )
    assert_same(*(second_order(conv(m), x, kernel) for m in (method, "lax")))


def test_conv_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="'winograd' or 'lax', got 'fft'"):
        layers.conv3x3(normal(0, 7, 7, 2, 3), normal(1, 3, 3, 3, 5), method="fft")


@pytest.mark.parametrize("mask", [None, [1, 0, 1]])
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("out", [8, 10])  # fewer and more outputs than numbers a patch
def test_block_is_its_parts(x64, mask, pool, out):
    x, kernel = normal(0, 6, 5, 3, 1), normal(1, 3, 3, 1, out)
    scale, offset = normal(2, out), normal(3, out)
    mask = None if mask is None else jnp.array(mask)
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
    x = jnp.ones((2, 2, 1, 1))
    gradient = jax.grad(lambda x: layers.max_pool2x2(x).sum())(x)
    assert gradient[:, :, 0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_batch_norm_is_flaxs(x64):
    x, scale, offset = normal(0, 3, 3, 4, 5), normal(1, 5), normal(2, 5)
    flax = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
    variables = flax.init(jax.random.key(0), x)
    variables = {**variables, "params": {"scale": scale, "bias": offset}}
    expected, _ = flax.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(
        layers.batch_norm(x, scale, offset), expected, rtol=1e-6, atol=1e-6
    )
    mask, kept = jnp.array([1, 0, 1, 1]), jnp.array([0, 2, 3])
    masked = layers.batch_norm(x.at[:, :, 1].set(1e3), scale, offset, mask)
    alone = layers.batch_norm(x[:, :, kept], scale, offset)
    np.testing.assert_allclose(masked[:, :, kept], alone, rtol=1e-10)


@pytest.mark.parametrize("strided", [False, True])
def test_conv4_shapes_and_parameter_count(strided):
    """Conv4 of ProtoNet: 64 features for 28 x 28; 112,832 parameters without head."""
    encoder = jm.models.conv4(None, strided=strided)
    params = encoder.init(jax.random.key(0))
    shape = lambda m: jax.eval_shape(m.apply, params, jnp.zeros((2, 28, 28, 1))).shape
    assert shape(encoder) == (2, 64)
    # 640 + 3 * 36,928 in convolutions with bias, 4 * 128 in batch norm
    assert sum(a.size for a in jax.tree.leaves(params)) == 640 + 3 * 36928 + 4 * 128
    head = jm.models.conv4(7, widths=(4, 5, 6, 8), strided=strided)
    params = head.init(jax.random.key(0))
    assert shape(head) == (2, 7)
    assert params["head"]["kernel"].shape == (8, 7)


def test_conv4_refuses_images_that_pool_to_nothing():
    with pytest.raises(ValueError, match="leave nothing of 8 x 8 images"):
        jm.models.conv4(5, input_shape=(8, 8, 1))


class LinenNet(nn.Module):
    """Dropout and running statistics, to be in the way."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.Dropout(0.0, deterministic=not train)(x))


class NNXNet(nnx.Module):
    """Likewise."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.norm(self.first(x)))


MODELS = {
    "linen": lambda: jm.models.from_linen(LinenNet(), (3,), train=True),
    "nnx": lambda: jm.models.from_nnx(lambda rngs: NNXNet(rngs)),
    "functions": lambda: jm.models.from_functions(
        lambda key: jax.random.normal(key, (3, 2)), lambda w, x: x @ w
    ),
    "pair": lambda: jm.Model(
        lambda key: jax.random.normal(key, (3, 2)), lambda w, x: x @ w
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_network_meta_learns(name):
    """init and apply are pure, and MAML trains through them under jit and vmap."""
    model = MODELS[name]()
    params = model.init(jax.random.key(0))
    x = normal(1, 5, 3)
    assert model.apply(params, x).shape == (5, 2)
    np.testing.assert_array_equal(model.apply(params, x), model.apply(params, x))
    learner = jm.maml(model, inner_lr=0.1, loss=jm.losses.mse)
    batch = jm.Batch(jnp.stack([x, 2 * x]), jnp.ones((2, 5, 2)))
    (_, _), gradient = jax.jit(jm.meta_gradient(learner))(params, jm.Task(batch, batch))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    assert any(bool((g != 0).any()) for g in jax.tree.leaves(gradient))


def test_linen_adapter_is_the_modules_own_apply():
    module, x = nn.Dense(2), normal(1, 5, 3)
    model = jm.models.from_linen(module, (3,))
    params = model.init(jax.random.key(0))
    np.testing.assert_array_equal(
        model.apply(params, x), module.apply({"params": params}, x)
    )


def test_nnx_adapter_is_the_modules_own_call():
    x = normal(1, 5, 3)
    model = jm.models.from_nnx(lambda rngs: NNXNet(rngs))
    np.testing.assert_allclose(
        model.apply(model.init(jax.random.key(3)), x),
        NNXNet(nnx.Rngs(jax.random.key(3)))(x),
        rtol=1e-6,
    )


def test_functions_must_be_functions():
    with pytest.raises(ValueError, match="apply: expected a function, got 3"):
        jm.models.from_functions(lambda key: 0, 3)
