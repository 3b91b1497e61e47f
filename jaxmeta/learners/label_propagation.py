"""Transductive propagation network (TPN): labels spread over a learned graph.

Liu, Lee, Park, Kim, Yang, Hwang, Yang. Learning to Propagate Labels: Transductive
Propagation Network for Few-Shot Learning. ICLR 2019, arXiv 1805.10002. Over the support
and all queries together, with d features f and a length sigma_i = exp g(f_i) of each:

    W_ij = exp(-|f_i / sigma_i - f_j / sigma_j|^2 / 2d), k nearest neighbours (eq. 2)
    S = D^-1/2 W D^-1/2,   F* = (I - alpha S)^-1 Y                        (eq. 4)
    p(y | x_i) = softmax(F*_i)                                            (eq. 5)

Y has the labels of the support; rows of unlabelled examples and of queries are zero.

Meta-parameters: those of the encoder f and of the graph network g.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses, models
from jaxmeta.learners.common import (
    check_ways,
    embed_support,
    known,
    query_loss,
    squared_distances,
    weights_of,
)
from jaxmeta.learners.laplacian_shot import neighbours
from jaxmeta.types import MetaLearner, Model, PyTree, forward


class TPNParams(NamedTuple):
    """Meta-parameters of a transductive propagation network."""

    encoder: PyTree
    graph: Any


class Labelled(NamedTuple):
    """An adapted TPN: the support set, until the queries come."""

    params: TPNParams
    f: jax.Array  # [examples, features]
    belongs: jax.Array  # [examples, ways]
    weights: jax.Array  # [examples] 0 for padding


def propagate(w: jax.Array, y: jax.Array, alpha: float) -> jax.Array:
    """(I - alpha S)^-1 Y: symmetric W [n, n], Y [n, ways] -> [n, ways] (eq. 4).

    Source: Zhou et al. 2003, Learning with Local and Global Consistency, eq. 3.
    """
    degree = jnp.sum(w, axis=1)
    root = jnp.where(degree > 0, jax.lax.rsqrt(jnp.where(degree > 0, degree, 1)), 0)
    s = root[:, None] * w * root[None, :]
    return jnp.linalg.solve(jnp.eye(len(w), dtype=w.dtype) - alpha * s, y)


def label_propagation(
    model: Model,
    *,
    ways: int = 5,
    features: int = 64,
    alpha: float = 0.99,
    neighbours_of: int = 20,
) -> MetaLearner:
    """Label propagation: a graph of support and queries, trained in episodes.

    Args:
        model: the encoder f, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        features: size of what the encoder makes of an example.
        alpha: how far labels spread, in (0, 1).
        neighbours_of: k, neighbours that an example is joined to.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways] that depend on all
        inputs it is asked with. Unlabelled support examples (y = -1) are part of the
        graph.
    Raises: ValueError for fewer than 2 ways, alpha not in (0, 1), sizes below 1.
    """
    check_ways(ways)
    checks.check_sizes(features=features, neighbours_of=neighbours_of)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a number in (0, 1), got {alpha}")
    graph = models.mlp(features, 1, (8,))

    def init(key):
        key_encoder, key_graph = jax.random.split(key)
        return TPNParams(model.init(key_encoder), graph.init(key_graph))

    def adapt(params, support, key=None):
        del key  # deterministic
        f, belongs = embed_support(
            model, params.encoder, support, ways, unlabelled=True
        )
        return Labelled(params, f, belongs, weights_of(support.mask, f))

    def predict(adapted, inputs, mask=None):
        params, f, belongs, counts = adapted
        q = forward(model, params.encoder, inputs, mask)
        weights = jnp.concatenate([counts, weights_of(mask, q)])
        both = jnp.where(weights[:, None] > 0, jnp.concatenate([f, q]), 0)
        # exp keeps the length positive, and starts it near 1
        both = both * jnp.exp(-graph.apply(params.graph, both))
        d = squared_distances(both, both) / features
        near = neighbours(d, weights, neighbours_of)
        w = jnp.exp(-d / 2) * jnp.maximum(near, near.T)
        y = jnp.concatenate([belongs, jnp.zeros((len(q), ways), q.dtype)])
        spread = propagate(w, y, alpha)[len(f) :]
        return known(spread, jnp.sum(belongs, axis=0))

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
