"""Meta-test: many unseen tasks, the mean and its 95 % interval."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks, defaults
from jaxmeta.outer import inputs_of, number_of, task_keys
from jaxmeta.tasks.episodes import to_float
from jaxmeta.types import MetaLearner, Sampler, Task


class Report(NamedTuple):
    """Metrics over many tasks; keys as in the metrics of the learner's `loss`."""

    mean: dict[str, float]
    ci95: dict[str, float]  # 1.96 standard deviations of the mean over tasks
    per_task: dict[str, np.ndarray]  # [num_tasks] each
    num_tasks: int
    diverged: int  # tasks whose loss is not finite

    def __str__(self) -> str:
        rows = [f"{k} {self.mean[k]:.4f} ± {self.ci95[k]:.4f}" for k in self.mean]
        failed = f", {self.diverged} diverged" if self.diverged else ""
        return f"{', '.join(rows)} ({self.num_tasks} tasks{failed})"


def evaluate(
    learner: MetaLearner,
    params: Any,
    sampler: Sampler,
    *,
    num_tasks: int = 600,
    key: jax.Array,
    tasks_at_once: int | None = None,
) -> Report:
    """Adapt to many tasks, judge on their query sets.

    Args:
        learner, params: what to test.
        sampler: where tasks come from; task i is `sampler.sample(fold_in(key, i))`, so
            two learners evaluated with one key see the same tasks.
        num_tasks: how many. key: typed key.
        tasks_at_once: tasks in one vmap; None = the default of the backend.

    Returns: a `Report`; its means are over all tasks, a diverged one included.
    Raises: ValueError for fewer than 2 tasks or a key of the old type.

    >>> import jax, jaxmeta as jm
    >>> learner = jm.baselines.nearest_neighbour(ways=None)
    >>> report = jm.evaluate(learner, (), jm.tasks.sinusoid(), key=jax.random.key(0))
    >>> report.num_tasks, report.per_task["loss"].shape
    (600, (600,))
    """
    checks.check_key(key)
    if num_tasks < 2:
        raise ValueError(f"num_tasks: expected at least 2, got {num_tasks}")
    if tasks_at_once is None:
        shapes = jax.eval_shape(lambda: jax.vmap(sampler.sample)(task_keys(key, 64)))
        tasks_at_once = defaults.tasks_at_once(64, inputs_of(shapes))
    keys = task_keys(key, num_tasks)
    metrics = _metrics(learner, params, sampler, keys, min(tasks_at_once, num_tasks))
    return summarize(metrics)


def evaluate_episodes(
    learner: MetaLearner,
    params: Any,
    tasks: Task | Iterable[Task],
    *,
    key: jax.Array | None = None,
    tasks_at_once: int | None = None,
) -> Report:
    """Adapt to given episodes, judge on their query sets.

    Args:
        learner, params: what to test.
        tasks: a batch of tasks, `Task(Batch(x, y), Batch(x, y))` of arrays [tasks,
            examples, ...]; or tasks one by one, which may differ in size (each new size
            compiles anew). Images of type uint8 are taken as 0..255.
        key: typed key for learners that adapt at random; None = without.
        tasks_at_once: tasks in one vmap, for a batch; None = the default of the backend.

    Returns: a `Report`; task i of a batch gets the key fold_in(key, i).
    Raises: ValueError for no task, shapes that do not fit, labels out of range, NaN.

    >>> import numpy as np, jaxmeta as jm
    >>> x, y = np.eye(3)[None], np.arange(3)[None]  # one task, three classes
    >>> tasks = jm.Task(jm.Batch(x, y), jm.Batch(x + 0.1, y))
    >>> learner = jm.baselines.nearest_neighbour(ways=3)
    >>> evaluate_episodes(learner, (), tasks).mean["accuracy"]
    1.0
    """
    if key is not None:
        checks.check_key(key)
    one_by_one = not isinstance(tasks, Task)
    groups = (
        [jax.tree.map(lambda a: a[None], t) for t in tasks] if one_by_one else [tasks]
    )
    if not groups or number_of(groups[0]) == 0:
        raise ValueError("tasks: expected at least one episode, got none")
    found = []
    for i, group in enumerate(groups):
        group = Task(*(b._replace(x=to_float(jnp.asarray(b.x))) for b in group))
        group = jax.tree.map(jnp.asarray, group)
        _check_episodes(learner, params, group)
        n = number_of(group)
        size = tasks_at_once or defaults.tasks_at_once(n, inputs_of(group))
        keys = None if key is None else task_keys(key, i + n)[i:]
        found.append(_given_metrics(learner, params, group, keys, min(size, n)))
    return summarize({k: np.concatenate([f[k] for f in found]) for k in found[0]})


def _check_episodes(learner, params, tasks: Task) -> None:
    """Raise ValueError for shapes, labels or values that do not fit.

    Learners look at labels that are concrete; the tasks with the extremes suffice.
    """
    if len({len(a) for a in jax.tree.leaves(tasks)}) > 1 or tasks.support.y.ndim < 2:
        shapes = [tuple(a.shape) for a in jax.tree.leaves(tasks)]
        raise ValueError(
            f"tasks: expected arrays [tasks, examples, ...] of as many tasks, got {shapes}"
        )
    suspects = {0}
    for batch in tasks:
        keep = np.ones(batch.y.shape[:2]) if batch.mask is None else batch.mask
        keep = np.asarray(keep) > 0
        checks.check_finite(np.asarray(batch.x)[keep], "tasks, inputs")
        checks.check_finite(np.asarray(batch.y)[keep], "tasks, targets")
        each = np.where(keep, np.asarray(batch.y).reshape(*keep.shape, -1)[..., 0], 0)
        suspects |= {int(each.min(axis=1).argmin()), int(each.max(axis=1).argmax())}
    for i in sorted(suspects):
        task = jax.tree.map(lambda a, i=i: a[i], tasks)
        checks.check_task(task)
        jax.eval_shape(lambda p, task=task: learner.loss(p, task), params)


@partial(jax.jit, static_argnames=("learner", "tasks_at_once"))
def _given_metrics(learner, params, tasks, keys, tasks_at_once):
    one = lambda given: learner.loss(params, *given)[1]
    return jax.lax.map(one, (tasks, keys), batch_size=tasks_at_once)


def summarize(per_task: dict[str, Any]) -> Report:
    """A `Report` of metrics [tasks] each; a task diverged if its `loss`
    (or else its first metric) is not finite.

    >>> print(summarize({"accuracy": [0.5, 0.7, 0.6]}))
    accuracy 0.6000 ± 0.1132 (3 tasks)
    """
    values = {name: np.asarray(v, np.float64) for name, v in per_task.items()}
    num_tasks = len(next(iter(values.values())))
    with np.errstate(invalid="ignore", over="ignore"):
        mean = {name: float(v.mean()) for name, v in values.items()}
        # one task has no spread
        std = lambda v: float(v.std(ddof=1)) if num_tasks > 1 else float("nan")
        spread = {name: std(v) for name, v in values.items()}
    ci95 = {name: 1.96 * s / num_tasks**0.5 for name, s in spread.items()}
    judged = values.get("loss", next(iter(values.values())))
    diverged = int((~np.isfinite(judged)).sum())
    return Report(mean, ci95, values, num_tasks, diverged)


@partial(jax.jit, static_argnames=("learner", "tasks_at_once"))
def _metrics(learner, params, sampler, keys, tasks_at_once):
    def one(key):
        key_task, key_adapt = jax.random.clone(key), jax.random.fold_in(key, 0)
        return learner.loss(params, sampler.sample(key_task), key_adapt)[1]

    return jax.lax.map(one, keys, batch_size=tasks_at_once)
