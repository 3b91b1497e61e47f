"""Small parameters: what is lost is bounded, and what is left works."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import one_task

import jaxmeta as jm

NETWORK = jm.models.mlp(6, 5, (16,))


@pytest.fixture(scope="module")
def params():
    return NETWORK.init(jax.random.key(0))


def test_eight_bits_are_half_a_scale_from_the_weights(params):
    """By numpy; an output without weights stays without."""
    head = params["head"] | {"kernel": params["head"]["kernel"].at[:, 1].set(0)}
    params = params | {"head": head}
    small = jax.jit(jm.to_int8)(params)
    for name, layer in params.items():
        kernel, found = np.asarray(layer["kernel"]), small[name]["kernel"]
        largest = np.abs(kernel).max(axis=0, keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1)
        np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
        assert found.values.dtype == np.int8
        whole = jm.from_int8(small)[name]["kernel"]
        assert (np.abs(np.subtract(whole, kernel)) <= scale * 0.501).all()
        assert np.abs(found.values).max(axis=0).tolist() == [
            127 if number else 0 for number in largest.ravel()
        ]
        np.testing.assert_array_equal(small[name]["bias"], layer["bias"])
    assert not np.any(jm.from_int8(small)["head"]["kernel"][:, 1])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_arrays_come_back_in_the_type_they_had(dtype):
    a = {"w": jnp.ones((2, 3, 4), dtype), "n": jnp.arange(4).reshape(2, 2), "s": 2.0}
    back = jm.from_int8(jm.to_int8(a))
    assert back["w"].dtype == dtype and back["w"].shape == (2, 3, 4)
    assert back["n"] is a["n"] and back["s"] == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_does_not_become_a_number(bad):
    back = jm.from_int8(jm.to_int8({"w": jnp.array([[1.0, bad], [2.0, 3.0]])}))
    assert np.isnan(back["w"][:, 1]).any() and np.isfinite(back["w"][:, 0]).all()


def test_zeros_stay_and_the_rest_is_trained(params):
    """Biases, which start at zero, are trained as well."""
    thin = jm.prune(params, 0.5)
    optimizer = optax.chain(optax.sgd(0.1), jm.zeros_stay())
    ones = jax.tree.map(jnp.ones_like, thin)
    step = jax.jit(lambda p: optimizer.update(ones, optimizer.init(p), p)[0])(thin)
    for name, layer in thin.items():
        moved = np.where(np.asarray(layer["kernel"]) == 0, 0, -0.1)
        np.testing.assert_allclose(step[name]["kernel"], moved, rtol=1e-6)
        np.testing.assert_allclose(step[name]["bias"], -0.1, rtol=1e-6)


def test_a_quarter_of_the_bytes():
    bytes_of = lambda tree: sum(a.nbytes for a in jax.tree.leaves(tree))
    wide = jm.models.conv4(5, input_shape=(28, 28, 1)).init(jax.random.key(0))
    assert 3.8 < bytes_of(wide) / bytes_of(jm.to_int8(wide)) < 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_the_smallest_of_each_kernel_are_left_out(params, share):
    thin = jax.jit(jm.prune, static_argnums=1)(params, share)
    for before, after in zip(*map(jax.tree.leaves, (params, thin)), strict=True):
        before, after = np.asarray(before), np.asarray(after)
        if before.ndim < 2:
            np.testing.assert_array_equal(before, after)
            continue
        kept = np.sort(np.abs(before), axis=None)[round(share * before.size) :]
        np.testing.assert_array_equal(np.sort(np.abs(after[after != 0])), kept)
        np.testing.assert_array_equal(after[after != 0], before[after != 0])


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "half"])
def test_a_share_that_is_none_is_refused(params, share):
    with pytest.raises(ValueError, match="share: expected a number"):
        jm.prune(params, share)


ELSEWHERE = """
import sys, json, jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
given = np.load(sys.argv[2])
print(json.dumps([program.call(given["x"], given["y"], given["new"]).tolist(),
                  [m for m in sys.modules if m.startswith(("jaxmeta", "flax", "optax"))]]))
"""


def test_what_adapts_and_predicts_runs_where_jaxmeta_is_not(params, blobs, tmp_path):
    """The weights of eight bits inside the program, another number of queries."""
    learner = jm.protonet(NETWORK, ways=3)
    small = jax.device_get(jm.to_int8(params))

    def answer(x, y, new):
        adapted = learner.adapt(jm.from_int8(small), jm.Batch(x, y))
        return learner.predict(adapted, new)

    task = one_task(jm.tasks.episodes(blobs, 3, 2, 4), jax.random.key(1))
    (n,) = jax.export.symbolic_shape("n")
    shape = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype)
    new = jax.ShapeDtypeStruct((n, 6), np.float32)
    given = shape(task.support.x), shape(task.support.y), new
    program = jax.export.export(jax.jit(answer))(*given)
    (tmp_path / "program").write_bytes(program.serialize())
    x, y, new = task.support.x, task.support.y, task.query.x
    np.savez(tmp_path / "given.npz", x=x, y=y, new=new)
    told = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path / "program", tmp_path / "given.npz"],
        capture_output=True,
        text=True,
        check=True,
    )
    outputs, modules = json.loads(told.stdout)
    assert not modules
    np.testing.assert_allclose(outputs, answer(x, y, new), rtol=1e-4, atol=1e-4)
