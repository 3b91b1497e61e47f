"""What is reported of a user: the loss, the absolute error, and how items are ranked."""

import jax.numpy as jnp

from jaxmeta import losses
from jaxmeta.learners.objectives import query_loss
from jaxmeta.ranking import ranking
from jaxmeta.types import AdaptFn, LossFn, PredictFn


def rating_loss(adapt: AdaptFn, predict: PredictFn, loss: losses.Loss) -> LossFn:
    """The mean loss of the queries, for ratings [query, 1].

    The metrics also have "mae", in units of the ratings, and those of `ranking` of the first
    five. Args: the two functions of the learner, and the loss of one example.
    """

    def judged(params, task, key=None):
        outputs = []  # what the loss was made of, so that it is predicted once

        def remembering(adapted, inputs, mask=None):
            outputs.append(predict(adapted, inputs, mask))
            return outputs[-1]

        value, metrics = query_loss(adapt, remembering, loss)(params, task, key)
        query, (found,) = task.query, outputs
        error = losses.mean(jnp.abs(found - query.y), query.mask)
        return value, metrics | {"mae": error} | ranking(found, query)

    return judged
