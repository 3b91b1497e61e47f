"""Descriptions of parameters: their first numbers, and what does not fit them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

import jaxmeta as jm
from jaxmeta.models import parameters
from jaxmeta.models.parameters import Parameter

HE = nn.initializers.kaiming_normal()
DESCRIPTION = {
    "phi": Parameter((2,)),
    "weights": Parameter((2, 3), HE, 2),
    "conv1": parameters.conv(3, 4),
    "film": {"layer": parameters.dense(2, 3)},
    "norm": parameters.batch_norm(3),
    "blocks_0": {"attention": {"query": parameters.dense(3, 4)}},
    "again": parameters.layer_norm(3),
}


class Conv(nn.Module):
    @nn.compact
    def __call__(self):
        self.param("bias", nn.initializers.zeros_init(), (4,))
        self.param("kernel", nn.initializers.glorot_uniform(), (3, 3, 3, 4))


class Norm(nn.Module):
    @nn.compact
    def __call__(self):
        self.param("scale", nn.initializers.ones_init(), (3,))
        self.param("offset", nn.initializers.zeros_init(), (3,))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="query")(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Attention(name="attention")(x)


class Film(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="layer")(x)


class Linen(nn.Module):
    """The same parameters as a Flax module draws them."""

    def setup(self):
        self.phi = self.param("phi", nn.initializers.zeros_init(), (2,))
        self.weights = self.param("weights", HE, (2, 3))
        self.blocks = [Block()]
        self.conv1, self.norm, self.film = Conv(), Norm(), Film()
        self.again = nn.LayerNorm()

    def __call__(self, x):
        self.conv1()
        self.norm()
        self.film(x[:, :2])
        return self.again(x), self.blocks[0](x)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.key(3, impl="rbg")])
def test_parameters_start_as_those_of_a_linen_module(key, double):
    with jax.enable_x64(double):
        fill = jax.jit(lambda key: parameters.fill(DESCRIPTION, key))
        ours = fill(key)
        theirs = jax.jit(Linen().init)(jax.random.clone(key), np.ones((1, 3)))["params"]
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


SMALL = {"input_shape": (16, 16, 2), "widths": (2, 3, 4, 5)}
M = jm.models
STARTS = {  # network, number of arrays and of numbers, sum of their cubes
    "mlp": (lambda: M.mlp(2, 3, (4, 5), context=2), 7, 65, -1.5765727),
    "conv4": (lambda: M.conv4(3, context=2, **SMALL), 21, 464, 13.6953739),
    "resnet12": (lambda: M.resnet12(3, **SMALL), 50, 1522, 68.9752579),
    "relation_module": (
        lambda: M.relation_module((4, 5, 2), widths=3, hidden=2), 12, 164, 10.2081854,
    ),
    "transformer": (lambda: M.transformer(2, 3, width=4, heads=2), 36, 371, 27.7593607),
    "set_encoder": (
        lambda: M.set_encoder(2, 3, hidden=(4, 6), after=(5,), heads=2), 18, 275, 5.8421492,
    ),
    "cross_attention": (
        lambda: M.cross_attention(2, 3, width=4, heads=2, hidden=(5,)), 12, 115, -6.7488590,
    ),
    "reader": (
        lambda: M.reader(3, width=4, heads=2, hidden=5, layers=2), 36, 333, 17.9715223,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_networks_start_as_they_did(name):
    """Where published runs started: the numbers that Flax Linen drew for key 0."""
    make, arrays, numbers, cubes = STARTS[name]
    leaves = jax.tree.leaves(jax.jit(make().init)(jax.random.key(0)))
    assert (len(leaves), sum(a.size for a in leaves)) == (arrays, numbers)
    found = sum((np.asarray(a, np.float64) ** 3).sum() for a in leaves)
    np.testing.assert_allclose(found, cubes, rtol=1e-6)


@pytest.mark.parametrize(
    ("impl", "double", "shape"),
    [
        ("threefry2x32", False, (3, 3, 2, 17)),
        ("threefry2x32", True, (16, 16)),
        ("rbg", False, (3, 5)),
    ],
)
def test_what_is_drawn_is_the_initializers(impl, double, shape):
    """Bit for bit, with programs that arrays of other shapes use, too."""
    with jax.enable_x64(double):
        for start in (parameters.LECUN, parameters.KAIMING, parameters.GLOROT):
            key = jax.random.key(1, impl=impl)
            theirs = start(jax.random.clone(key), shape)
            ours = parameters.drawn(key, start, shape)
            assert ours.dtype == theirs.dtype and ours.shape == shape
            np.testing.assert_array_equal(ours, theirs)


def test_what_has_no_such_start_is_said_as_by_the_initializers():
    """Vectors have no inputs and outputs."""
    with pytest.raises(ValueError, match="1-dimensional weights"):
        parameters.drawn(jax.random.key(0), parameters.LECUN, (5,))
    half = parameters.drawn(jax.random.key(0), parameters.GLOROT, (3, 5), jnp.bfloat16)
    theirs = parameters.GLOROT(jax.random.key(0), (3, 5), jnp.bfloat16)
    np.testing.assert_array_equal(half, theirs)


def test_what_is_drawn_stays_with_its_key_and_may_be_within_a_program():
    key = jax.random.key(0)
    draw = lambda key: parameters.drawn(key, parameters.GLOROT, (3, 5))
    inside = jax.jit(lambda: draw(jax.random.clone(key)))()
    np.testing.assert_allclose(inside, draw(jax.random.clone(key)), rtol=1e-6)
    there = jax.device_put(key, jax.devices()[1])
    assert draw(there).devices() == {jax.devices()[1]}


def test_arrays_of_many_shapes_are_drawn_by_few_programs(monkeypatch):
    sizes = set()
    unit = parameters._unit

    def counted(key, uniform, size, dtype):
        sizes.add((uniform, size))
        return unit(key, uniform, size, dtype)

    monkeypatch.setattr(parameters, "_unit", counted)
    for width in (3, 7, 11):
        jm.models.mlp(2, width, (9, 8)).init(jax.random.key(0))
        jm.models.conv4(3, widths=width).init(jax.random.key(0))
    assert sizes <= {(False, 256), (True, 256), (True, 1024), (True, 4096)}


def test_parameters_of_another_network_are_refused():
    model = jm.models.mlp(2, 3, (4,))
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
    x = np.ones((5, 2), np.float32)
    others = [
        (None, r"\['dense1'\]\['bias'\] is an array of \(4,\), got none"),
        ({"dense1": params["dense1"]}, r"\['head'\]\['bias'\] is .* got none"),
        (
            jax.jit(jm.models.mlp(2, 7, (4,)).init)(jax.random.key(0)),
            r"\(3,\), got one of \(7,\)",
        ),
        (jax.tree.map(lambda a: a[None], params), r"\(4,\), got one of \(1, 4\)"),
    ]
    for other, sentence in others:
        with pytest.raises(ValueError, match=f"params: expected those of .*{sentence}"):
            model.apply(other, x)
    more = params | {"tail": {"kernel": np.ones(3)}}
    frozen = freeze(params)
    for fine in (more, frozen, jax.tree.map(jnp.asarray, params)):
        np.testing.assert_array_equal(model.apply(fine, x), model.apply(params, x))


def test_each_door_of_a_network_looks_at_its_parameters():
    reader = jm.models.reader(3, width=4, heads=2, hidden=5, layers=1)
    cross = jm.models.cross_attention(2, 3, width=4, heads=2)
    resnet = jm.models.resnet12(input_shape=(16, 16, 1), widths=(2, 2, 2, 2))
    x, tokens, images = np.ones((5, 2)), np.ones((5, 4)), np.ones((2, 16, 16, 1))
    for call in (
        lambda: reader.encode({}, tokens),
        lambda: reader.read({}, tokens[None], tokens),
        lambda: cross.apply({}, x, x, np.ones((5, 3))),
        lambda: resnet.noisy({}, images, None, jax.random.key(0), 0),
    ):
        with pytest.raises(ValueError, match="params: expected those of this network"):
            call()
