"""What a learned method must beat: the same four functions, with nothing learned."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import columns
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import Batch, MetaLearner


@register(
    paper="Cover and Hart 1967, IEEE Trans. Inf. Theory 13",
    learns=("classification", "regression"),
    networks=lambda n: [],
)
def nearest_neighbour(ways: int | None = 5) -> MetaLearner:
    """One nearest neighbour in input space (pixels), Euclidean.

    Args:
        ways: classes of a task; None for regression, where the prediction is the target
            of the nearest support input.

    Returns: a `MetaLearner` without parameters: `evaluate` it with params `()`. With
        ways, `predict` gives minus the distance to the nearest example of each class.

    >>> import jax.numpy as jnp
    >>> learner = nearest_neighbour(ways=2)
    >>> support = Batch(jnp.array([[0.0], [1.0]]), jnp.array([0, 1]))
    >>> learner.predict(learner.adapt((), support), jnp.array([[0.8]])).argmax()
    Array(1, dtype=int32)
    """
    if ways is not None:
        checks.check_sizes(2, ways=ways)

    one = lambda shapes: shapes[0] if len(shapes) == 1 else shapes

    def adapt(params, support, key=None):
        del params, key
        return _Memory(support)

    def predict(adapted, inputs, mask=None):
        del mask  # examples are judged one by one
        x, y, keep = adapted.support
        shapes = [[a.shape[1:] for a in jax.tree.leaves(t)] for t in (x, inputs)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"inputs: expected examples of shape {one(shapes[0])}, as in the support "
                f"set, got {one(shapes[1])}"
            )
        difference = columns(inputs)[:, None, :] - columns(x)[None, :, :]
        distance = jnp.sqrt(jnp.sum(jnp.square(difference), axis=-1))  # [n, support]
        if keep is not None:
            distance = jnp.where(keep[None, :] > 0, distance, jnp.inf)
        if ways is None:
            near = columns(y)[jnp.argmin(distance, axis=1)]
            return near + 0 * jnp.min(distance, axis=1, keepdims=True)  # NaN stays NaN
        of_class = y[None, :] == jnp.arange(ways)[:, None]  # [ways, support]
        masked = jnp.where(of_class[None], distance[:, None, :], jnp.inf)
        return -jnp.min(masked, axis=-1)

    def init(key):
        del key
        return ()

    loss = losses.mse if ways is None else losses.cross_entropy
    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))


class _Memory(NamedTuple):
    support: Batch
