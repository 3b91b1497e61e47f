"""Siamese networks.

Koch, Zemel, Salakhutdinov. Siamese Neural Networks for One-shot Image Recognition. ICML
2015 deep learning workshop, section 3:

    p(same | x_1, x_2) = sigmoid(sum_j alpha_j |h_j(x_1) - h_j(x_2)|)

trained with the cross-entropy of pairs, same class or not; a query is given the class of
the support example it is most likely to be the same as.

Departures:
- All pairs of a support and a query example count, those of one class as much as all
  others; the paper draws pairs at random, of one class and of two.
- There is a bias, and alpha starts at -1 / features; the paper's formula has none, and
  its dense weights start as normal numbers of deviation 0.2.
- The loss has no penalty; the paper's has an L2 penalty for each layer.

Meta-parameters: those of the encoder h, the weights alpha and a bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import embed_support, sized
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class SiameseParams(NamedTuple):
    """Meta-parameters of a siamese network."""

    encoder: PyTree
    alpha: jax.Array  # [features]
    bias: jax.Array  # []


class Memory(NamedTuple):
    """An adapted siamese network: the support set."""

    params: SiameseParams
    h: jax.Array  # [examples, features]
    onehot: jax.Array  # [examples, ways]


@register(
    paper="Koch et al. 2015, ICML workshop",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def siamese(encoder: Model, *, ways: int = 5, features: int = 64) -> MetaLearner:
    """Siamese network: learned verification of pairs, then the most similar example.

    Args:
        encoder: the encoder h, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        features: size of what the encoder makes of an example.

    Returns: a `MetaLearner`; `predict` gives the largest pair logit of each class
        [examples, ways], -inf for a class without support examples. The loss is the
        cross-entropy of all pairs of a support and a query example, those of one class
        weighing as much as all others together.
    Raises: ValueError for fewer than 2 ways, features below 1.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)

    def init(key):
        alpha = jnp.full((features,), -1.0 / features, jnp.float32)  # nearer = likelier
        return SiameseParams(encoder.init(key), alpha, jnp.zeros((), jnp.float32))

    def adapt(params, support, key=None):
        del key  # deterministic
        return Memory(params, *embed_support(encoder, params.encoder, support, ways))

    def pair_logits(adapted, inputs, mask):
        params, h, _ = adapted
        z = forward(encoder, params.encoder, inputs, mask)
        apart = jnp.abs(z[:, None, :] - h[None, :, :])
        return apart @ params.alpha + params.bias  # [n, examples]

    def best(pairs, onehot):
        of_class = jnp.where(onehot.T[None] > 0, pairs[:, None, :], -jnp.inf)
        return jnp.max(of_class, axis=-1)

    def predict(adapted, inputs, mask=None):
        return best(pair_logits(adapted, inputs, mask), adapted.onehot)

    def loss(params, task, key=None):
        adapted = adapt(params, task.support, key)
        query = task.query
        pairs = pair_logits(adapted, query.x, query.mask)
        same = jnp.take(
            adapted.onehot, query.y, axis=1, mode="fill", fill_value=jnp.nan
        ).T
        counts = jnp.any(adapted.onehot > 0, axis=1).astype(same.dtype)[None, :]
        each = optax.sigmoid_binary_cross_entropy(pairs, same)
        other = counts * (1 - same)
        mean = lambda weights: (
            jnp.sum(each * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)
        )
        value = losses.mean((mean(same) + mean(other)) / 2, query.mask)
        scores = losses.score(best(pairs, adapted.onehot), query)
        return value, {"loss": value, **scores}

    return MetaLearner(init, adapt, predict, loss)
