"""Half precision inside a network, full precision around it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

import jaxmeta as jm
from jaxmeta.models.layers import batch_norm, conv_block

RANDOM = np.random.default_rng(0)
NETWORKS = {
    "mlp": lambda: jm.models.mlp((6, 6, 1), 3, (8,)),
    "conv4": lambda: jm.models.conv4(3, input_shape=(6, 6, 1), widths=8, strided=True),
}


def draw(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def products(f, *args) -> set[str]:
    """The types in which matrices are multiplied."""

    def of(jaxpr):
        for line in jaxpr.eqns:
            if line.primitive.name == "dot_general":
                yield line.invars[0].aval.dtype.name
            for inner in jaxprs_in_params(line.params):
                yield from of(inner)

    return {*of(jax.make_jaxpr(f)(*args).jaxpr)}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_multiplies_in_half_and_keeps_in_full(name):
    model = NETWORKS[name]()
    half = jm.models.computed_in(model)
    assert half == jm.models.computed_in(model)  # compiled once
    params, x = half.init(jax.random.key(0)), draw(12, 6, 6, 1)
    same = jax.tree.map(np.array_equal, params, model.init(jax.random.key(0)))
    assert all(jax.tree.leaves(same))
    assert products(model.apply, params, x) == {"float32"}
    assert "bfloat16" in products(half.apply, params, x)
    y, exact = (jax.jit(m.apply)(params, x) for m in (half, model))
    assert y.dtype == jnp.float32
    # eight bits of mantissa, some layers of them
    np.testing.assert_allclose(y, exact, atol=0.05 * np.abs(exact).max())
    assert np.any(y != exact)


def test_a_meta_step_is_of_full_precision(blobs):
    half = jm.models.computed_in(jm.models.mlp(6, 3, (8,)))
    learner = jm.maml(half, inner_lr=0.1, inner_steps=2)
    tasks = jm.tasks.episodes(blobs, ways=3, shots=2, queries=4)
    optimizer = optax.adam(1e-2)
    state = jm.fit(learner, tasks, optimizer, steps=40, key=jax.random.key(2))
    kinds = {a.dtype.name for a in jax.tree.leaves((state.params, state.opt_state))}
    assert kinds == {"float32", "int32"}
    before, after = (
        jm.evaluate(learner, params, tasks, key=jax.random.key(2), num_tasks=20)
        for params in (learner.init(jax.random.key(0)), state.params)
    )
    assert after.mean["loss"] < before.mean["loss"]
    batch = jm.sample_tasks(tasks, jax.random.key(3), 2)
    own = jm.maml(jm.models.mlp(6, 3, (8,)), inner_lr=0.1, inner_steps=2)
    slopes = [
        np.concatenate([np.ravel(a) for a in jax.tree.leaves(slope)])
        for slope in (
            jax.jit(jm.meta_gradient(m))(state.params, batch)[1] for m in (learner, own)
        )
    ]
    cosine = slopes[0] @ slopes[1] / np.prod([*map(np.linalg.norm, slopes)])
    assert cosine > 0.99


def test_a_solvers_head_solves_in_full(blobs):
    half = jm.models.computed_in(jm.models.mlp(6, 8, (8,)))
    task = jm.tasks.episodes(blobs, ways=3, shots=2, queries=2).sample(
        jax.random.key(1)
    )
    learner = jm.r2d2(half, ways=3)
    params = learner.init(jax.random.key(0))
    z = (
        half.apply(params.encoder, task.support.x)
        if hasattr(params, "encoder")
        else None
    )
    assert z is None or z.dtype == jnp.float32
    adapted = learner.adapt(params, task.support)
    logits = learner.predict(adapted, task.query.x)
    assert {a.dtype.name for a in jax.tree.leaves((adapted, logits))} <= {
        "float32",
        "int32",
    }


def test_statistics_of_norms_are_of_full_precision():
    """Of 3,000 values near 100, whose mean and deviation 8 bits can't hold."""
    x, kernel, image = draw(1, 1, 3000, 2), draw(3, 3, 1, 16), draw(6, 6, 300, 1)
    narrow = np.asarray(100 + x).astype(jnp.bfloat16)
    given = {
        batch_norm: (narrow, np.ones(2), np.zeros(2), 0.01),
        conv_block: (image, kernel, np.ones(16), np.zeros(16), 0.1),
    }
    for layer, (*arrays, tolerance) in given.items():
        cast = lambda dtype, arrays=arrays: [np.asarray(a, dtype) for a in arrays]
        half, full = (jax.jit(layer)(*cast(d)) for d in (jnp.bfloat16, jnp.float32))
        assert half.dtype == jnp.bfloat16
        half = np.asarray(half, np.float32)
        np.testing.assert_allclose(half, full, atol=tolerance)


def test_other_types_get_a_sentence():
    with pytest.raises(ValueError, match="dtype"):
        jm.models.computed_in(jm.models.mlp(), "int8")
    with pytest.raises(ValueError, match="model"):
        jm.models.computed_in(lambda x: x)
