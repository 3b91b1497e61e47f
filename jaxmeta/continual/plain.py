"""Plain training on a stream, which forgets: what every other method is held against.

McCloskey, Cohen. Catastrophic Interference in Connectionist Networks. Psychology of
Learning and Motivation 24, 1989.
"""

from typing import Any, NamedTuple

import jax
import optax

from jaxmeta import losses
from jaxmeta.boundary import remembered
from jaxmeta.continual import online
from jaxmeta.types import Model, Online, PyTree


class PlainState(NamedTuple):
    """What the next step needs."""

    params: PyTree
    opt_state: Any


@remembered
def plain(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: losses.Loss = losses.cross_entropy,
) -> Online:
    """Descend the loss of each minibatch, and nothing else.

    Args: model: the network. optimizer: of its parameters. loss: of one example.
    Returns: an `Online`. Raises: ValueError for what is no network or optimiser.

    >>> import jax, numpy as np, optax, jaxmeta as jm
    >>> online = plain(jm.models.mlp(2, 2, (4,)), optax.sgd(0.1))
    >>> batch = jm.Batch(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> state = online.init(jax.random.key(0), batch)
    >>> state, metrics = online.observe(state, batch, jax.random.key(1))
    >>> online.predict(state, batch.x).shape
    (2, 2)
    """
    online.check_parts(model, optimizer, loss)
    objective = online.batch_loss(model, loss)

    def init(key, batch):
        del batch
        return PlainState(*online.begun(model.init, optimizer, key))

    def observe(state, batch, key):
        del key  # deterministic
        value, g = jax.value_and_grad(objective)(state.params, batch)
        return online.stepped(optimizer, state, g), {"loss": value}

    return Online(init, observe, online.by_network(model))
