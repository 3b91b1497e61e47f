"""Meta-test: many unseen tasks, the mean and its 95 % interval."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import checks, defaults
from jaxmeta.outer import inputs_of, task_keys
from jaxmeta.types import MetaLearner, Sampler


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
        spread = {name: float(v.std(ddof=1)) for name, v in values.items()}
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
