"""What several learners share: the outer objective, and checks of arguments."""

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.types import (
    AdaptFn,
    Batch,
    LossFn,
    Model,
    PredictFn,
    Task,
    blank_padding,
)


def query_loss(adapt: AdaptFn, predict: PredictFn, loss: losses.Loss) -> LossFn:
    """The outer objective of most learners: adapt to support, be judged on query.

        L(params) = mean over query of loss(predict(adapt(params, support), x), y)

    Args: the two functions of the learner, and the loss of one example.
    Returns: (params, task, key=None) -> (loss [], metrics).
    """

    def task_loss(params, task: Task, key=None):
        adapted = adapt(params, task.support, key)
        checks.check_batch(task.query, "query")
        query = blank_padding(task.query)
        outputs = predict(adapted, query.x, query.mask)
        if is_classification(query):
            checks.check_labels(query, outputs.shape[-1], "query")
        value = losses.mean_loss(loss, outputs, query)
        return value, {"loss": value, **losses.score(outputs, query)}

    return task_loss


def is_classification(batch: Batch) -> bool:
    """Integer targets are classes; anything else is regression."""
    return bool(jnp.issubdtype(batch.y.dtype, jnp.integer))


def check_support(model: Model, params, support: Batch) -> None:
    """Raise ValueError for a support set that does not fit the model.

    Labels are looked at only where they are concrete, that is outside jit.
    """
    checks.check_batch(support)
    if is_classification(support):
        outputs = jax.eval_shape(model.apply, params, support.x)
        checks.check_labels(support, outputs.shape[-1])


def check_descent(inner_lr, inner_steps) -> None:
    """Raise ValueError unless the arguments of an inner loop make sense."""
    if not callable(inner_lr) and isinstance(inner_lr, (int, float)) and inner_lr < 0:
        raise ValueError(f"inner_lr: expected a step size >= 0, got {inner_lr}")
    if not isinstance(inner_steps, int) or inner_steps < 0:
        raise ValueError(
            f"inner_steps: expected a whole number >= 0, got {inner_steps!r}"
        )


def check_ways(ways) -> None:
    """Raise ValueError unless there are at least two classes to tell apart."""
    if not isinstance(ways, int) or ways < 2:
        raise ValueError(f"ways: expected a whole number >= 2, got {ways!r}")


def one_hot(labels, ways: int, mask, dtype):
    """[examples] integers -> [examples, ways]; the rows of masked examples are 0."""
    rows = (labels[:, None] == jnp.arange(ways)[None, :]).astype(dtype)
    return rows if mask is None else jnp.where(mask[:, None] > 0, rows, 0)
