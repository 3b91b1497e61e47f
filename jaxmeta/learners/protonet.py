"""Prototypical networks.

Snell, Swersky, Zemel. Prototypical Networks for Few-shot Learning. NeurIPS 2017,
arXiv 1703.05175:

    c_k = mean of f_phi(x_i) over the support examples of class k          (eq. 1)
    p_phi(y = k | x) = softmax_k(-d(f_phi(x), c_k)),  d squared Euclidean  (eq. 2)

Meta-parameters: phi, exactly the parameters of the encoder.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.learners.common import check_ways, one_hot, query_loss
from jaxmeta.types import MetaLearner, Model, PyTree, blank_padding, forward


class Prototypes(NamedTuple):
    """An adapted prototypical network."""

    phi: PyTree  # the encoder's parameters
    c: jax.Array  # [ways, features]
    shots: jax.Array  # [ways] support examples of each class


def _squared_distances(z, c):
    """[n, features], [ways, features] -> [n, ways]; differences first, so that
    far-away clusters lose no digits to cancellation."""
    return jnp.sum(jnp.square(z[:, None, :] - c[None, :, :]), axis=-1)


def protonet(model: Model, *, ways: int = 5) -> MetaLearner:
    """Prototypical network: classify by the nearest class mean of embeddings.

    Args:
        model: the encoder f_phi, inputs -> [examples, features].
        ways: classes of a task. The parameters do not depend on it: train with 20 or
            60 ways, then build the learner again with the ways of the test tasks.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways.
    """
    check_ways(ways)

    def adapt(params, support, key=None):
        del key  # deterministic
        checks.check_batch(support)
        checks.check_labels(support, ways)
        support = blank_padding(support)
        z = forward(model, params, support.x, support.mask)  # [examples, features]
        belongs = one_hot(support.y, ways, support.mask, z.dtype)  # [examples, ways]
        shots = jnp.sum(belongs, axis=0)
        return Prototypes(params, belongs.T @ z / jnp.maximum(shots, 1)[:, None], shots)

    def predict(adapted, inputs, mask=None):
        z = forward(model, adapted.phi, inputs, mask)
        logits = -_squared_distances(z, adapted.c)
        return jnp.where(adapted.shots[None, :] > 0, logits, -jnp.inf)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(model.init, adapt, predict, loss)
