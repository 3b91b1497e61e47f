"""Transductive propagation network (TPN): labels spread over a learned graph.

Liu, Lee, Park, Kim, Yang, Hwang, Yang. Learning to Propagate Labels: Transductive
Propagation Network for Few-Shot Learning. ICLR 2019, arXiv 1805.10002. Over the support
and all queries together, with d features f and a length sigma_i = exp g(f_i) of each:

    W_ij = exp(-|f_i / sigma_i - f_j / sigma_j|^2 / 2d), k nearest neighbours (eq. 2)
    S = D^-1/2 W D^-1/2,   F* = (I - alpha S)^-1 Y                        (eq. 4)
    p(y | x_i) = softmax(F*_i)                                            (eq. 5)

Y has the labels of the support; rows of unlabelled examples and of queries are zero.
Training descends the mean of -log p(y_i | x_i) over support and queries together (eq. 6:
every labelled example of the graph); what is reported is that of the queries.

Departures:
- g is a perceptron of f, and sigma = exp g; in the paper two blocks of convolutions see
  the maps of f before two dense layers, and sigma is what comes out.
- An example is no neighbour of itself; in the authors' code it is one of its k, W_ii = 1.

Meta-parameters: those of the encoder f and of the graph network g.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses, models
from jaxmeta.batches import forward, precise
from jaxmeta.learners.features import (
    embed_support,
    mask_absent_classes,
    sized,
    squared_distances,
    weights_of,
)
from jaxmeta.learners.objectives import query_loss, query_metrics
from jaxmeta.learners.registry import register
from jaxmeta.learners.transductive.graph import neighbours
from jaxmeta.types import MetaLearner, Model, PyTree, Task


class TPNParams(NamedTuple):
    """Meta-parameters of a transductive propagation network."""

    encoder: PyTree
    graph: Any


class Labelled(NamedTuple):
    """An adapted TPN: the support set, until the queries come."""

    params: TPNParams
    f: jax.Array  # [examples, features]
    onehot: jax.Array  # [examples, ways]
    weights: jax.Array  # [examples] 0 for padding


def propagate(w: jax.Array, y: jax.Array, alpha: float) -> jax.Array:
    """(I - alpha S)^-1 Y: symmetric W [n, n], Y [n, ways] -> [n, ways] (eq. 4).

    Source: Zhou et al. 2003, Learning with Local and Global Consistency, eq. 3.
    """
    w, y = precise(w), precise(y)
    degree = jnp.sum(w, axis=1)
    root = jnp.where(degree > 0, jax.lax.rsqrt(jnp.where(degree > 0, degree, 1)), 0)
    s = root[:, None] * w * root[None, :]
    return jnp.linalg.solve(jnp.eye(len(w), dtype=w.dtype) - alpha * s, y)


@register(
    paper="Liu et al. 2019, arXiv 1805.10002",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    transductive=True,
    unlabelled=True,
    tiny={"neighbours_of": 5},
)
def label_propagation(
    encoder: Model,
    *,
    ways: int = 5,
    features: int = 64,
    alpha: float = 0.99,
    neighbours_of: int = 20,
) -> MetaLearner:
    """Label propagation: a graph of support and queries, trained in episodes.

    Args:
        encoder: the encoder f, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        features: size of what the encoder makes of an example.
        alpha: how far labels spread, in (0, 1).
        neighbours_of: k, neighbours that an example is joined to.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways] that depend on all
        inputs it is asked with. Unlabelled support examples (y = -1) are part of the
        graph.
    Raises: ValueError for fewer than 2 ways, alpha not in (0, 1), sizes below 1.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    checks.check_sizes(neighbours_of=neighbours_of)
    checks.check_numbers(above=0, below=1, alpha=alpha)
    graph = models.mlp(features, 1, (8,))

    def init(key):
        key_encoder, key_graph = jax.random.split(key)
        return TPNParams(encoder.init(key_encoder), graph.init(key_graph))

    def adapt(params, support, key=None):
        del key  # deterministic
        f, onehot = embed_support(encoder, params.encoder, support, ways)
        return Labelled(params, f, onehot, weights_of(support.mask, f))

    def spread(adapted, inputs, mask):
        """Logits [support + inputs, ways]."""
        params, f, onehot, counts = adapted
        q = forward(encoder, params.encoder, inputs, mask)
        weights = jnp.concatenate([counts, weights_of(mask, q)])
        both = jnp.where(weights[:, None] > 0, jnp.concatenate([f, q]), 0)
        # exp keeps the length positive, and starts it near 1
        both = both * jnp.exp(-graph.apply(params.graph, both))
        d = squared_distances(both, both) / features
        near = neighbours(d, weights, neighbours_of)
        w = jnp.exp(-d / 2) * jnp.maximum(near, near.T)
        y = jnp.concatenate([onehot, jnp.zeros((len(q), ways), q.dtype)])
        return mask_absent_classes(propagate(w, y, alpha), jnp.sum(onehot, axis=0))

    def predict(adapted, inputs, mask=None):
        return spread(adapted, inputs, mask)[len(adapted.f) :]

    def trained(params, task: Task, key, step):
        del key, step
        (support, query), adapted = task, adapt(params, task.support)
        logits = spread(adapted, query.x, query.mask)
        queries = logits[len(support.y) :]
        seen = lambda adapted, inputs, mask=None: queries
        _, metrics = query_metrics(seen, losses.cross_entropy)(adapted, task)
        labelled = jnp.sum(adapted.onehot, axis=1)
        counts = jnp.concatenate([labelled, weights_of(query.mask, queries)])
        y = jnp.concatenate([jnp.where(labelled > 0, support.y, 0), query.y])
        value = losses.mean(losses.cross_entropy(logits, y), counts)
        return value, metrics

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss, trained)
