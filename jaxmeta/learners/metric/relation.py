"""Relation networks.

Sung, Yang, Zhang, Xiang, Torr, Hospedales. Learning to Compare: Relation Network for
Few-Shot Learning. CVPR 2018, arXiv 1711.06025:

    r_ij = g_phi(C(f_phi(x_i), f_phi(x_j)))  in 0..1                     (eq. 1)
    phi <- argmin sum_ij (r_ij - 1(y_i == y_j))^2                        (eq. 2)

C joins feature maps along channels; for several shots the maps of a class are summed
first (section 3.2).

Meta-parameters: those of the embedding f and of the relation module g.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward, one_hot
from jaxmeta.learners.features import embed_support, mask_absent_classes, weights_of
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class RelationParams(NamedTuple):
    """Meta-parameters of relation networks."""

    embedding: PyTree
    relation: PyTree


class Classes(NamedTuple):
    """An adapted relation network."""

    params: RelationParams
    c: jax.Array  # [ways, ..., channels] summed feature maps
    shots: jax.Array  # [ways]


@register(
    paper="Sung et al. 2018, arXiv 1711.06025",
    learns=("classification",),
    networks=lambda n: [n.maps(), n.pairs()],
)
def relation(embedding: Model, module: Model, *, ways: int = 5) -> MetaLearner:
    """Relation network: a learned comparison of a query with each class.

    Args:
        embedding: f, inputs -> feature maps [examples, ..., channels], e.g.
            `conv4(None, pools=2, grid=True)`.
        module: g, [pairs, ..., 2 * channels] -> [pairs, 1], before the sigmoid, e.g.
            `relation_module()`.
        ways: classes of a task; the parameters do not depend on it.

    Returns: a `MetaLearner`; `predict` gives logits of the relation scores [examples,
        ways], -inf for a class without support examples. The loss is eq. 2's squared
        error, averaged over pairs.
    Raises: ValueError for fewer than 2 ways.
    """
    checks.check_models(embedding=embedding, module=module)
    checks.check_sizes(2, ways=ways)

    def init(key):
        key_embedding, key_relation = jax.random.split(key)
        return RelationParams(embedding.init(key_embedding), module.init(key_relation))

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(embedding, params.embedding, support, ways)
        c = jnp.tensordot(onehot, z, axes=(0, 0))
        return Classes(params, c, jnp.sum(onehot, axis=0))

    def predict(adapted, inputs, mask=None):
        params, c, shots = adapted
        z = forward(embedding, params.embedding, inputs, mask)
        n = len(z)
        each = jnp.broadcast_to(z[:, None], (n, *c.shape))
        pairs = jnp.concatenate([jnp.broadcast_to(c[None], each.shape), each], axis=-1)
        pairs = jnp.reshape(pairs, (n * ways, *pairs.shape[2:]))
        # pairs with padding, or with a class without examples, are padding
        counts = weights_of(mask, z)[:, None] * (shots > 0)[None, :]
        scores = forward(module, params.relation, pairs, jnp.reshape(counts, -1))
        return mask_absent_classes(jnp.reshape(scores, (n, ways)), shots)

    def squared_error(outputs, targets):
        wanted = one_hot(targets, ways, None, outputs.dtype)
        return losses.mse(jax.nn.sigmoid(outputs), wanted)

    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, squared_error))
