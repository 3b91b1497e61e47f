"""What learners descend, inside and outside, and what a test reports of a task."""

from collections.abc import Callable

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.inner import Objective
from jaxmeta.types import (
    AdaptFn,
    LossFn,
    Model,
    PredictFn,
    PyTree,
    Task,
)


def query_loss(adapt: AdaptFn, predict: PredictFn, loss: losses.Loss) -> LossFn:
    """The loss of most learners: adapt to support, be judged on query.

        L(params) = mean over query of loss(predict(adapt(params, support), x), y)

    Args: the two functions of the learner, and the loss of one example.
    Returns: (params, task, key=None) -> (loss [], metrics).
    """

    judge = query_metrics(predict, loss)

    def task_loss(params, task: Task, key=None):
        return judge(adapt(params, task.support, key), task)

    return task_loss


def query_metrics(
    predict: PredictFn, loss: losses.Loss
) -> Callable[[PyTree, Task], tuple]:
    """(adapted, task) -> (query loss [], metrics), of what has already been adapted."""
    checks.check_functions(loss=loss)

    def judge(adapted, task):
        query = task.query
        outputs = predict(adapted, query.x, query.mask)
        value = losses.mean_loss(loss, outputs, query)
        return value, {"loss": value, **losses.score(outputs, query)}

    return judge


def predictor(model: Model) -> PredictFn:
    """predict of a learner whose `adapted` is a tree of the model's parameters."""
    checks.check_models(model=model)

    def predict(adapted, inputs, mask=None):
        return forward(model, adapted, inputs, mask)

    return predict


def support_objective(model: Model, loss: losses.Loss) -> Objective:
    """(theta, context, batch) -> the mean loss of a model, all of whose parameters are
    adapted."""
    checks.check_models(model=model)
    checks.check_functions(loss=loss)

    def objective(theta, context, batch):
        del context
        return losses.mean_loss(loss, forward(model, theta, batch.x, batch.mask), batch)

    return objective
