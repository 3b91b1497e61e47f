"""What is reported of a user: the loss, the absolute error, and how items are ranked."""

import jax.numpy as jnp

from jaxmeta import losses
from jaxmeta.ranking import ranking
from jaxmeta.types import AdaptFn, LossFn, PredictFn


def rating_loss(adapt: AdaptFn, predict: PredictFn, loss: losses.Loss) -> LossFn:
    """The mean loss of the queries, for ratings [query, 1].

    The metrics also have "mae", in units of the ratings, and those of `ranking` of the first
    five. Args: the two functions of the learner, and the loss of one example.
    """

    def judged(params, task, key=None):
        adapted, query = adapt(params, task.support, key), task.query
        outputs = predict(adapted, query.x, query.mask)
        value = losses.mean_loss(loss, outputs, query)
        error = losses.mean(jnp.abs(outputs - query.y), query.mask)
        return value, {"loss": value, "mae": error, **ranking(outputs, query)}

    return judged
