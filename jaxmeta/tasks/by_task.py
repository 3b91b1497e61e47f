"""Tasks from a table with a column that says which task a row belongs to.

A user and the items they rated, a patient and their visits, a site and its measurements:
regression (or classification of classes that all tasks share) from a user's own data.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from jaxmeta import checks
from jaxmeta.batches import to_device
from jaxmeta.boundary import to_float
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import Plan, Planner, Slots, planned
from jaxmeta.tasks.sizes import Fixed, Range, Sizes, Varied, fewest_and_most
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "targets", "planner"],
    meta_fields=[],
)
@dataclass(frozen=True)
class ByTask:
    """A distribution over the tasks of a data set."""

    x: Any  # [examples, ...], task after task, an array or a pytree of arrays
    targets: Any  # [examples, ...]
    planner: Planner  # of one "class" an episode

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task, drawn uniformly: rows of it in random order, x [shots, ...], y
        [shots, ...], and a query set of others; padded and masked where shots vary."""
        plan = self.plan(key)
        return Task(self._batch(plan.support), self._batch(plan.query))

    def plan(self, key: jax.Array) -> Plan:
        """Which task and which of its rows `sample(key)` has."""
        return self.planner.plan(key)

    def _batch(self, slots: Slots) -> Batch:
        take = lambda a: to_float(a[slots.example])
        y = jax.tree.map(lambda a: a[slots.example], self.targets)
        return Batch(jax.tree.map(take, self.x), y, slots.mask)


def by_task(dataset: Dataset, shots: Range | None = None, queries: int = 10) -> ByTask:
    """Tasks that are groups of the rows of a data set, with targets of their own.

    Args:
        dataset: whose classes are tasks and which has targets:
            `jm.data.from_arrays(x, task, targets=y)`, or `jm.data.from_csv(path,
            task="user", target="rating")`.
        shots: support rows of a task; (fewest, most): drawn uniformly, as far as the task
            has them; None = all but the query rows, padded to the largest task.
        queries: query rows of a task.

    Returns: a sampler. Raises: ValueError for data without targets, or a task with fewer
        than shots + queries rows, by name.

    >>> import numpy as np, jaxmeta as jm
    >>> x = np.arange(12.0)[:, None]
    >>> data = jm.data.from_arrays(x, ["ann"] * 5 + ["bob"] * 7, targets=2 * x)
    >>> task = by_task(data, queries=2).sample(jax.random.key(0))
    >>> task.support.x.shape, int(task.support.mask.sum()), task.query.y.shape
    ((5, 1), 3, (2, 1))
    """
    checks.check_kind(dataset, Dataset, "dataset")
    if dataset.targets is None:
        raise ValueError(
            f"dataset: {dataset.title} has no targets; expected one of tasks, e.g. "
            "jm.data.from_arrays(x, task, targets=y), or use jm.tasks.episodes"
        )
    sizes = _sizes(shots, queries, int(dataset.counts.max()))
    dataset, planner = planned(dataset, sizes)
    x, targets = (jax.tree.map(to_device, a) for a in (dataset.x, dataset.targets))
    return ByTask(x, targets, planner)


def _sizes(shots: Range | None, queries: int, largest: int) -> Sizes:
    checks.check_sizes(queries=queries)
    if shots is None:
        most = max(1, largest - queries)
        return Varied((1, 1), (most, most), queries, False, least=1)
    fewest, most = fewest_and_most(1, shots=shots)
    if not isinstance(shots, (tuple, list)):
        return Fixed(1, most, queries)
    return Varied((1, 1), (fewest, most), queries, False)
