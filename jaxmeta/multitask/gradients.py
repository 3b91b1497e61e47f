"""The gradients of the tasks of a meta-step, one by one, and what combiners make of them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, keys, meshes
from jaxmeta.outer import objective_of
from jaxmeta.task_axis import (
    all_true,
    are_finite,
    as_auto,
    keys_of,
    number_of,
    over_tasks,
)
from jaxmeta.types import MetaLearner, Metrics, PyTree, Task

Combiner = Callable[..., jax.Array]


class OfTasks(NamedTuple):
    """What each task of a batch says, [tasks] on each array."""

    value: jax.Array
    metrics: Metrics
    gradient: PyTree
    fine: jax.Array  # whether value and gradient are finite

    def mean(self) -> Metrics:
        """Means of the metrics, and the share of tasks that diverged."""
        bad = (~self.fine).astype(self.value.dtype)
        return jax.tree.map(jnp.mean, self.metrics | {"diverged": bad})


def task_gradients(
    learner: MetaLearner, combine: Combiner, *, tasks_at_once: int | None = None
) -> Callable:
    """The gradients of the tasks of a meta-step, combined to one.

    Args:
        learner: whose `objective` (or else `loss`) to differentiate, task by task.
        combine: (gramian [tasks, tasks], key) -> weights [tasks], see `jm.combiners`.
        tasks_at_once: tasks in one vmap, the vmaps following each other; None = all. The
            gradients of all tasks are kept until they are combined.

    Returns: (params, tasks, key=None, step=0) -> ((value [], metrics), gradient), to be
        given to `make_step` or `fit` as `gradient`; value and metrics are means over the
        tasks. On a mesh, each device sees the gradients of all tasks. One task whose
        gradient is not finite makes the whole not finite, so the step is not taken; the
        metric `diverged` is the share of such tasks, and `conflicts` that of the pairs of
        tasks whose gradients have a negative inner product.
    Raises: ValueError for what is no learner or no function, tasks_at_once below 1, or a
        combiner that does not make one weight a task.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> gradient = jm.task_gradients(learner, jm.combiners.upgrad)
    >>> state = jm.fit(learner, jm.tasks.sinusoid(), optax.adam(1e-3), steps=10,
    ...                key=jax.random.key(0), gradient=gradient)
    >>> int(state.step)
    10
    """
    checks.check_functions(combine=combine)
    run = of_tasks(learner, tasks_at_once)

    def gradient(params, tasks: Task, key=None, step=0, first=0, mesh=None):
        params, tasks = as_auto((params, tasks))
        checks.check_tasks(tasks)
        each = run(params, tasks, keys_of(key, number_of(tasks), first), step)
        each = each if mesh is None else meshes.joined(each)
        gramian = gramian_of(each.gradient)
        own = None if key is None else keys.purpose(key, "combine")
        weights = combine(gramian, own)
        _check_weights(weights, len(gramian))
        metrics = each.mean() | {"conflicts": _conflicts(gramian)}
        return (jnp.mean(each.value), metrics), weighted(weights, each.gradient)

    return gradient


def of_tasks(learner: MetaLearner, tasks_at_once: int | None) -> Callable:
    """(params, tasks, keys, step) -> `OfTasks`, of what training descends."""
    checks.check_learner(learner)
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)
    one = jax.value_and_grad(objective_of(learner), has_aux=True)

    def run(params, tasks, task_keys, step) -> OfTasks:
        def of(task, key):
            (value, metrics), gradient = one(params, task, key, step)
            fine = all_true(are_finite((value, gradient)))
            return OfTasks(value, metrics, gradient, fine)

        return over_tasks(of, tasks_at_once)(tasks, task_keys)

    return run


def gramian_of(jacobian: PyTree) -> jax.Array:
    """J J' [tasks, tasks] of arrays [tasks, ...]."""

    def of_leaf(a):
        rows = jnp.reshape(a, (len(a), -1))
        rows = rows.astype(jnp.promote_types(a.dtype, jnp.float32))
        return jnp.dot(rows, rows.T, precision="highest")

    first, *others = map(of_leaf, jax.tree.leaves(jacobian))
    return sum(others, first)


def weighted(weights: jax.Array, jacobian: PyTree) -> PyTree:
    """J' w of arrays [tasks, ...]."""
    total = lambda a: jnp.tensordot(weights, a.astype(weights.dtype), 1)
    return jax.tree.map(lambda a: total(a).astype(a.dtype), jacobian)


def _check_weights(weights, number: int) -> None:
    """Raise ValueError unless a combiner made one weight a task."""
    if jnp.shape(weights) != (number,):
        raise ValueError(
            f"combine: expected weights of shape ({number},), one a task, got "
            f"{checks.said(weights)}"
        )


def _conflicts(gramian: jax.Array) -> jax.Array:
    """[] share of the pairs of tasks."""
    m = len(gramian)
    return jnp.sum(gramian < 0).astype(gramian.dtype) / max(1, m * (m - 1))
