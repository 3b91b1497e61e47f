"""A small problem for every registered learner, from the registry itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import jaxmeta as jm
from jaxmeta import learners

WAYS = 3
CLASSES = 20
ROWS = [(n, p) for n, entry in learners.REGISTRY.items() for p in entry.problems]
# one row a learner, both problems in turn: for what is expensive and hardly depends on them
ONE_EACH = [
    (n, e.problems[i % len(e.problems)])
    for i, (n, e) in enumerate(learners.REGISTRY.items())
]
# the first learner of each family: its costly rows belong to the suite's core
CORE = {e.family: n for n, e in reversed(learners.REGISTRY.items())}.values()


def row(*values, core: bool):
    """Arguments of a test; outside the core they are slow (`-m "not slow"`)."""
    return pytest.param(*values, marks=() if core else pytest.mark.slow)


# what a learner needs to learn such small problems in so few steps
SPECIAL = {
    "imaml": {"inner_steps": 3, "penalty": 4.0, "inner_lr": 0.005},
    "learned_optimizer": {"inner_steps": 4, "hidden": 4},
    "lstm_meta_learner": {"hidden": 4},
    "leo": {"latent": 4},
    "mann": {"hidden": 16, "slots": 12, "size": 4, "reads": 2},
    "tnpd": {"width": 8, "layers": 1, "heads": 2, "hidden": 8},
    "in_context": {"width": 8, "layers": 1, "heads": 2, "hidden": 8},
    "neural_process": {"samples": 4},
    "transductive_finetuning": {"inner_lr": 1e-3},
    "tim": {"inner_lr": 0.01},
    "laplacian_shot": {"iterations": 4},
    "pt_map": {"iterations": 4, "sharpness": 2.0},
    "label_propagation": {"neighbours_of": 5},
    "deepemd": {"iterations": 10, "inner_steps": 1},
    "anp": {"samples": 4},
    "snail": {"length": 12, "scale": 0.1},
}


def make(name: str, problem: str, blobs, activation=jax.nn.relu, **hyper):
    """(learner, sampler) with tiny networks."""
    entry = learners.REGISTRY[name]
    classify = problem == "classification"
    if classify:
        sampler = jm.tasks.episodes(
            blobs, WAYS, shots=2, queries=3, unlabelled=2 if entry.unlabelled else 0
        )
    else:
        sampler = jm.tasks.sinusoid(shots=5, queries=5)
    inputs, outputs = (6, WAYS) if classify else (1, 1)
    mlp = partial(jm.models.mlp, inputs, activation=activation)
    models = {
        ("outputs",): lambda: [mlp(outputs, (16,))],
        ("features",): lambda: [mlp(8, (16,))],
        ("context",): lambda: [mlp(outputs, (16,), context=4)],
        ("grid", "relation"): lambda: [as_grid(mlp(8, (16,))), pairs_of_grids()],
        ("grid",): lambda: [as_grid(mlp(8, (16,)))],
        ("encoder", "decoder"): lambda: [
            jm.models.mlp(2, 16, (16,)),
            jm.models.mlp(17, 2, (16,)),
        ],
        ("encoder", "latent", "decoder"): lambda: [
            jm.models.mlp(2, 8, (16,)),
            jm.models.set_encoder(2, 8, hidden=(16,), after=(16,)),
            jm.models.mlp(13, 2, (16,)),
        ],
        ("encoder", "latent", "attention", "decoder"): lambda: [
            jm.models.mlp(2, 8, (16,)),
            jm.models.set_encoder(2, 8, hidden=(16,), after=(16,)),
            jm.models.cross_attention(1, 8, width=8, heads=2, hidden=(16,)),
            jm.models.mlp(13, 2, (16,)),
        ],
        (): list,
    }[entry.models]()
    fitting = {
        "inner_lr": 0.1 if classify else 0.01,
        "loss": jm.losses.cross_entropy if classify else jm.losses.mse,
        "ways": WAYS if classify else None,
        "features": 8,
        "inner_steps": 3 if classify else 1,
        "x_dims": inputs,
        "classes": CLASSES,
    }
    defaults = {k: v for k, v in fitting.items() if entry.takes(k)}
    defaults |= SPECIAL.get(name, {})
    return entry.constructor(*models, **(defaults | hyper)), sampler


def training_sampler(name: str, sampler, blobs):
    """What the learner trains on: the episodes, or minibatches of all classes."""
    if learners.REGISTRY[name].trains_on == "classes":
        return jm.tasks.classes(blobs, batch=8)
    return sampler


def as_grid(model: jm.Model) -> jm.Model:
    """8 features as a map of 4 positions and 2 channels."""
    apply = lambda params, x: jnp.reshape(model.apply(params, x), (len(x), 2, 2, 2))
    return jm.Model(model.init, apply)


def pairs_of_grids() -> jm.Model:
    """A relation module over two joined maps."""
    return jm.models.mlp((2, 2, 4), 1, (8,))


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


def naive_attention(q, k, v, see):
    """One head, one query at a time."""
    rows = []
    for i in range(len(q)):
        scores = [q[i] @ k[j] / len(q[i]) ** 0.5 for j in range(len(k)) if see[i, j]]
        values = [v[j] for j in range(len(k)) if see[i, j]]
        rows.append(sum(w * a for w, a in zip(softmax(scores), values, strict=True)))
    return np.stack(rows)
