"""A small problem for every registered learner, from the registry itself."""

import jax
import jax.numpy as jnp

import jaxmeta as jm
from jaxmeta import learners

WAYS = 3
ROWS = [(n, p) for n, entry in learners.REGISTRY.items() for p in entry.problems]


def make(name: str, problem: str, blobs, **hyper):
    """(learner, sampler) with tiny networks."""
    entry = learners.REGISTRY[name]
    classify = problem == "classification"
    if classify:
        sampler = jm.tasks.episodes(blobs, WAYS, shots=2, queries=3)
    else:
        sampler = jm.tasks.sinusoid(shots=5, queries=5)
    inputs, outputs = (6, WAYS) if classify else (1, 1)
    models = {
        ("outputs",): lambda: [jm.models.mlp(inputs, outputs, (16,))],
        ("features",): lambda: [jm.models.mlp(inputs, 8, (16,))],
        ("encoder", "decoder"): lambda: [
            jm.models.mlp(2, 16, (16,)),
            jm.models.mlp(17, 2, (16,)),
        ],
    }[entry.models]()
    defaults = {}
    if "inner_lr" in entry.defaults:
        loss = jm.losses.cross_entropy if classify else jm.losses.mse
        defaults = {"inner_lr": 0.1 if classify else 0.01, "loss": loss}
    if "ways" in entry.defaults:
        defaults = {"ways": WAYS if classify else None}
    return entry.constructor(*models, **(defaults | hyper)), sampler


def double(tree):
    """All floating leaves in float64."""
    cast = lambda a: (
        a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a
    )
    return jax.tree.map(cast, tree)


def pad(batch: jm.Batch, extra: int, fill: float) -> jm.Batch:
    """`extra` masked examples of nonsense appended."""
    n = len(batch.x)

    def longer(a):
        # NaN is not an integer; 99 is no label of any task
        value = fill if jnp.issubdtype(a.dtype, jnp.floating) else 99
        return jnp.concatenate([a, jnp.full((extra, *a.shape[1:]), value, a.dtype)])

    mask = jnp.concatenate([jnp.ones(n), jnp.zeros(extra)])
    return jm.Batch(longer(batch.x), longer(batch.y), mask)


def largest_difference(a, b) -> float:
    """max |a - b| over two trees, relative to the largest entry of b."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    return max(float(jnp.abs(p - q).max()) for p, q in leaves) / scale
