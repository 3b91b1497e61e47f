"""Partitions: what moves, and that nothing else does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import slope_is_a_difference

from jaxmeta import transfer

pytestmark = pytest.mark.usefixtures("x64")
key = jax.random.key
same = partial(jax.tree.map, np.testing.assert_array_equal)


def network():
    """Two convolutions, a norm and a head, as a tree of their shapes."""
    random = np.random.default_rng(0)
    shapes = {
        "conv1": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "conv2": {"kernel": (1, 1, 4, 4)},
        "norm": {"scale": (4,), "offset": (4,)},
        "attention": {"query": {"kernel": (4, 2, 3), "bias": (2, 3)}},
        "head": {"kernel": (6, 3), "bias": (3,)},
    }
    is_shape = lambda a: isinstance(a, tuple)
    draw = lambda shape: jnp.asarray(random.normal(size=shape))
    return jax.tree.map(draw, shapes, is_leaf=is_shape)


ALL = ["attention", "conv1", "conv2", "head", "norm"]
BIASES = {("attention", "query", "bias"), ("conv1", "bias"), ("head", "bias")}
VECTORS = BIASES | {("norm", "scale"), ("norm", "offset")}
HEAD = {("head", "bias"), ("head", "kernel")}
QUERY = ("attention", "query", "kernel")
MATRICES = {("conv1", "kernel"), ("conv2", "kernel"), ("head", "kernel"), QUERY}

PARTITIONS = {  # what moves, how many numbers
    "full": (transfer.full(), VECTORS | MATRICES, 72 + 4 + 16 + 8 + 24 + 6 + 18 + 3),
    "linear_probe": (transfer.linear_probe(), HEAD, 21),
    "bitfit": (transfer.bitfit(), VECTORS, 4 + 8 + 6 + 3),
    "bitfit_head": (transfer.bitfit(head="head"), VECTORS | HEAD, 18 + 21),
    "film": (transfer.film(), VECTORS | MATRICES, 21 + 4 + 4 + 3 + 3),
    "adapters": (transfer.adapters(), {("conv1", "kernel")}, 8),
    "adapters_head": (
        transfer.adapters(head="head"), {("conv1", "kernel"), *HEAD}, 8 + 21
    ),
    # r (m + n): conv1 is 18 x 4, conv2 4 x 4, the query 8 x 3, the head 6 x 3
    "lora": (transfer.lora(2), MATRICES, 2 * (22 + 8 + 11 + 9)),
    "lora_head": (transfer.lora(3, head="head"), MATRICES | HEAD, 3 * 41 + 21),
    "lora_query": (transfer.lora(3, layers=("query",), alpha=6.0), {QUERY}, 33),
}  # fmt: skip


def names(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(k.key for k in path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("name", PARTITIONS)
def test_starts_at_the_parameters_bit_for_bit(name):
    partition, _, numbers = PARTITIONS[name]
    moved = partition.init(network(), key(1))
    same(partition.merge(network(), moved), network())
    assert sum(a.size for a in jax.tree.leaves(moved)) == numbers
    assert set(moved) <= set(ALL)  # by layer


@pytest.mark.parametrize("name", PARTITIONS)
def test_what_does_not_move_stays_bit_for_bit(name):
    partition, moves, _ = PARTITIONS[name]
    random = np.random.default_rng(1)
    moved = jax.tree.map(
        lambda a: a + random.normal(size=a.shape), partition.init(network(), key(1))
    )
    before, after = names(network()), names(partition.merge(network(), moved))
    assert before.keys() == after.keys()
    assert {n for n in before if not np.array_equal(before[n], after[n])} == moves
    assert {n: a.shape for n, a in before.items()} == {
        n: a.shape for n, a in after.items()
    }


def test_low_rank_factors_are_a_product_of_that_rank():
    params, partition = network(), transfer.lora(2, alpha=6.0)
    moved = partition.init(params, key(1))
    random = np.random.default_rng(1)
    moved = jax.tree.map(lambda a: random.normal(size=a.shape), moved)
    merged = partition.merge(params, moved)
    for path in (("conv1",), ("head",), ("attention", "query")):
        w, m, after = params, moved, merged
        for layer in path:
            w, m, after = w[layer], m[layer], after[layer]
        w, after, m = w["kernel"], after["kernel"], m["kernel"]
        change = np.reshape(after - w, (-1, w.shape[-1]))
        assert np.linalg.matrix_rank(change, tol=1e-8) == 2
        np.testing.assert_allclose(change, 3 * np.dot(m["a"], m["b"]), atol=1e-12)


def test_low_rank_layer_computes_as_the_paper_has_it():
    """h = W_0 x + B A x, without the merged matrix; to 1e-6 in single precision."""
    with jax.enable_x64(False):
        random = np.random.default_rng(0)
        draw = lambda *shape: random.normal(size=shape).astype(np.float32)
        w, x, a, b = draw(8, 5), draw(4, 8), draw(8, 2), draw(2, 5)
        merge = transfer.lora(2).merge
        merged = merge({"kernel": w}, {"kernel": {"a": a, "b": b}})["kernel"]
        np.testing.assert_allclose(
            x @ merged, x @ w + (x @ a) @ b, rtol=1e-6, atol=1e-5
        )


def test_factors_differ_from_matrix_to_matrix_and_key_to_key():
    square = {"one": {"kernel": jnp.ones((4, 4))}, "two": {"kernel": jnp.ones((4, 4))}}
    start = lambda seed: transfer.lora(2).init(square, key(seed))
    a, b = (start(0)[name]["kernel"]["a"] for name in ("one", "two"))
    assert not np.allclose(a, b)
    assert not np.allclose(a, start(1)["one"]["kernel"]["a"])
    same(start(0), start(0))


def test_adapter_is_a_1x1_convolution_beside_the_kernel():
    random = np.random.default_rng(0)
    x, w = random.normal(size=(2, 6, 6, 3)), random.normal(size=(3, 3, 3, 4))
    alpha = random.normal(size=(3, 4))
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=numbers
    )
    merged = transfer.adapters().merge({"kernel": w}, {"kernel": alpha})["kernel"]
    np.testing.assert_allclose(conv(merged), conv(w) + x @ alpha, atol=1e-12)


def test_film_scales_and_shifts_what_a_layer_makes():
    random = np.random.default_rng(0)
    x, w, v = (random.normal(size=shape) for shape in ((5, 3), (3, 4), 4))
    gamma, beta = random.normal(size=(2, 4))
    merge = transfer.film().merge
    theta = merge({"kernel": w, "bias": v}, {"kernel": gamma, "bias": beta})
    made = x @ theta["kernel"] + theta["bias"]
    np.testing.assert_allclose(made, (1 + gamma) * (x @ w) + v + beta, atol=1e-12)


def test_fresh_head_starts_from_zeros():
    moved = transfer.linear_probe(fresh=True).init(network())
    assert list(moved) == ["head"] and not any(a.any() for a in jax.tree.leaves(moved))
    merged = transfer.linear_probe(fresh=True).merge(network(), moved)
    same(merged, network() | {"head": moved["head"]})


LISTS = [("full", {0, 1, 2}), ("bitfit", {0}), ("film", {0, 1, 2}), ("lora", {1, 2})]


@pytest.mark.parametrize(("name", "moves"), LISTS)
def test_trees_that_are_no_dicts(name, moves):
    """Layers in a list, as a user's own network may keep them."""
    partition = PARTITIONS[name][0]
    params = [{"b": jnp.ones(4), "w": jnp.ones((3, 4))}, (jnp.ones((4, 2)),)]
    moved = partition.init(params, key(0))
    same(partition.merge(params, moved), params)
    after = partition.merge(params, jax.tree.map(lambda a: a + 1.0, moved))
    pairs = zip(*map(jax.tree.leaves, (params, after)), strict=True)
    assert {i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b)} == moves


def test_the_same_arguments_are_the_same_partition():
    """So that a plan that is written again runs the programs that are compiled."""
    assert transfer.lora(2, head="head") == transfer.lora(2, head="head")
    assert transfer.lora(2) != transfer.lora(3)


PARAMS = {"body": {"kernel": np.ones((4, 6))}, "head": {"kernel": np.ones((6, 3))}}
BAD = [
    (transfer.bitfit, "bitfit: nothing of these parameters would move; got "
     r"body/kernel \(4, 6\), head/kernel \(6, 3\)"),
    (transfer.adapters, "adapters: nothing of these parameters would move"),
    (lambda: transfer.lora(2, layers=("neck",)), "lora: nothing of these parameters"),
    (lambda: transfer.lora(4), r"rank: head/kernel is a matrix of 6 x 3; expected at most "
     r"3, got 4; give a smaller one, .* or let its layer move whole \(head='head'\)"),
    (lambda: transfer.lora(0), "rank: expected a whole number >= 1, got 0"),
    (lambda: transfer.lora(2, alpha=0), "alpha: expected a number > 0, got 0"),
    (lambda: transfer.linear_probe("tail"), "head: linear_probe moves a layer 'tail' that "
     "is not there; expected one of body, head"),
    (lambda: transfer.film(head="tail"), "head: film moves a layer 'tail' that is not"),
    (lambda: transfer.linear_probe(fresh=1), "fresh: expected True or False, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_partitions_that_make_no_sense_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make().init(PARAMS, key(0))


def test_factors_need_a_key_and_moved_the_same_parameters():
    with pytest.raises(ValueError, match="key: expected a typed key"):
        transfer.lora(2).init(PARAMS)
    with pytest.raises(ValueError, match="moved: the parameters have no head/bias"):
        transfer.full().merge(PARAMS, {"head": {"bias": np.ones(3)}})
    with pytest.raises(ValueError, match="linear_probe moves .* no named layers"):
        transfer.linear_probe().init([np.ones(3)])


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_slope_of_what_is_merged_is_a_difference(name):
    """On the sum of squares of all parameters."""
    partition, _, _ = PARTITIONS[name]
    params = network()

    @jax.jit
    @jax.value_and_grad
    def squares(moved):
        merged = partition.merge(params, moved)
        return sum(jnp.sum(w**2) for w in jax.tree.leaves(merged))

    slope_is_a_difference(squares, partition.init(params, key(1)))
