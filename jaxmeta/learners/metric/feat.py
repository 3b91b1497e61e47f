"""FEAT: prototypes adapted to each other by a transformer.

Ye, Hu, Zhan, Sha. Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions.
CVPR 2020, arXiv 1812.03664. With the class means p_c:

    p'_c = LayerNorm(p_c + Attention(p_c, {p}, {p}))                      (eqs. 6-8)
    logits = -|f(x) - p'_c|^2 / t
    loss = cross-entropy + lambda L_reg                                   (eq. 9)

L_reg classifies all instances by class centres that the same transformer makes of each
class's instances.

Departures:
- The transformer has no dropout; the authors' has 0.1 of its attention and 0.5 of its
  output.
- Queries, keys and values have biases; the authors' have none.
- t is the same in L_reg; the authors' code has another there.
- Support and query are embedded apart; the authors' code embeds them as one batch, so
  that batch norm in training sees both.

Meta-parameters: the encoder's (in the paper from a classifier: `baseline`), the
transformer's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward, one_hot
from jaxmeta.learners.features import (
    class_means,
    embed_support,
    mask_absent_classes,
    sized,
    squared_distances,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.models.attention import set_to_set, set_to_set_parameters
from jaxmeta.models.parameters import fill
from jaxmeta.types import MetaLearner, Model, PyTree


class FEATParams(NamedTuple):
    """Meta-parameters of FEAT."""

    encoder: PyTree
    transformer: PyTree


class Adapted(NamedTuple):
    """An adapted FEAT."""

    encoder: PyTree
    c: jax.Array  # [ways, features] adapted prototypes
    shots: jax.Array  # [ways]


@register(
    paper="Ye et al. 2020, arXiv 1812.03664",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def feat(
    encoder: Model,
    *,
    ways: int = 5,
    features: int = 64,
    heads: int = 1,
    temperature: float = 8.0,
    balance: float = 0.1,
) -> MetaLearner:
    """FEAT: a prototypical network whose prototypes look at each other first.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        features: size of what the encoder makes of an example, a multiple of heads.
        heads: of the attention.
        temperature: t; of the order of the squared distances (the authors': 64 for 640
            features).
        balance: lambda, the weight of L_reg.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways, sizes or a temperature that are not
        positive, a negative balance, heads that do not divide features.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    checks.check_sizes(heads=heads)
    checks.check_positive(temperature=temperature)
    checks.check_numbers(least=0, balance=balance)
    if features % heads:
        raise ValueError(
            f"heads: expected a divisor of the {features} features, got {heads}"
        )

    def transform(params, z, mask):
        return set_to_set(params.transformer, z, heads, mask)

    def init(key):
        key_encoder, key_transformer = jax.random.split(key)
        transformer = fill(set_to_set_parameters(features), key_transformer)
        return FEATParams(encoder.init(key_encoder), transformer)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        c, shots = class_means(z, onehot)
        return Adapted(params.encoder, transform(params, c, shots), shots)

    def predict(adapted, inputs, mask=None):
        phi, c, shots = adapted
        z = forward(encoder, phi, inputs, mask)
        return mask_absent_classes(-squared_distances(z, c) / temperature, shots)

    def contrast(params, task):
        """L_reg: every instance against the centres of all."""
        support = embed_support(encoder, params.encoder, task.support, ways)
        query = task.query
        z = forward(encoder, params.encoder, query.x, query.mask)
        onehot = one_hot(query.y, ways, query.mask, z.dtype)
        if query.mask is not None:
            z = jnp.where(query.mask[:, None] > 0, z, 0)
        z = jnp.concatenate([support[0], z])
        onehot = jnp.concatenate([support[1], onehot])
        c, shots = class_means(transform(params, z, onehot @ onehot.T), onehot)
        log_p = jax.nn.log_softmax(
            jnp.where(shots > 0, -squared_distances(z, c) / temperature, -1e30), axis=1
        )
        return -jnp.sum(onehot * log_p) / jnp.maximum(jnp.sum(onehot), 1)

    loss = query_loss(adapt, predict, losses.cross_entropy)

    def objective(params, task, key, step):
        del step
        value, metrics = loss(params, task, key)
        return value + balance * contrast(params, task), metrics

    return MetaLearner(init, adapt, predict, loss, objective)
