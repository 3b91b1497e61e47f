"""Episodes whose examples stay on disk: planned as numbers, read when they are drawn.

The plan of an episode is the function of its key that `jm.tasks.episodes` uses for arrays
on the device, and what is random in an image is done on the device, too, so both ways
make the same episodes. A stream has no state but the number of the meta-step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.core
import numpy as np

from jaxmeta import keys, meshes
from jaxmeta.batches import to_device
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.plans import Plan
from jaxmeta.types import Task

INSIDE = (
    "sampler: it reads records, which a compiled program can't; give it to jm.fit or "
    "jm.evaluate as it is, or sample outside of jit"
)
CHUNK_BYTES = 2**26  # of raw examples that wait on the device; grain holds as many


class Planner(Protocol):
    """Which examples make a task, and the task that is made of them: a pytree."""

    def plan(self, key: jax.Array) -> Plan:
        """Which ones, a pure function of the key."""
        ...

    def finish(self, plan: Plan, x_support: Any, x_query: Any) -> Task:
        """The task of a plan and of its examples as they are stored."""
        ...


class Raw(NamedTuple):
    """Episodes as they were read: [tasks, ...], or [steps, tasks, ...]."""

    plan: Plan  # its key as data
    support: Any
    query: Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["raw", "planner"],
    meta_fields=["implementation"],
)
@dataclass(frozen=True)
class Given:
    """The tasks of some meta-steps, read before: what a compiled chunk of `fit` sees."""

    raw: Raw
    planner: Planner
    implementation: Any  # of the keys

    def at(self, step: jax.Array) -> "Given":
        """Those of one meta-step of the chunk."""
        raw = jax.tree.map(lambda a: a[step], self.raw)
        return Given(raw, self.planner, self.implementation)

    def parts(self, tasks: int) -> "Given":
        """What is split over the devices of a mesh, each of which draws its part of so
        many tasks."""
        del tasks
        return replace(self, raw=meshes.SPLIT, planner=meshes.SHARED)

    def draw(self, task_keys: jax.Array) -> Task:
        """The tasks of one meta-step, [tasks, ...], read before for these keys.

        Raises: ValueError for another number than was read.
        """
        there = self.raw.plan.turn.shape[0]
        if len(task_keys) != there:
            raise ValueError(
                f"tasks_per_step: {there} tasks a meta-step were read, {len(task_keys)} "
                "are asked for"
            )
        wrap = partial(jax.random.wrap_key_data, impl=self.implementation)

        def one(raw):
            plan = raw.plan._replace(key=wrap(raw.plan.key))
            return self.planner.finish(plan, raw.support, raw.query)

        return jax.vmap(one)(self.raw)

    def sample(self, key: jax.Array) -> Task:
        """Raises: ValueError: a stream gives the tasks of a meta-step as a whole."""
        raise ValueError(
            "sampler: records are read for a meta-step as a whole; expected an Outer that "
            "draws its tasks by jm.sample_tasks(sampler, key, number)"
        )


@dataclass(frozen=True, eq=False)
class Streamed:
    """A distribution over few-shot tasks whose examples are records, see `episodes`.

    threads: that read and decode. ahead: meta-steps to read before they are needed.
    """

    dataset: Dataset
    planner: Planner
    threads: int = 8
    ahead: int = 16

    @property
    def ways(self) -> int | None:
        """Classes of an episode, at most; None for minibatches."""
        return getattr(self.planner, "ways", None)

    def sample(self, key: jax.Array) -> Task:
        """One episode, read now. Raises: ValueError inside a compiled program."""
        if isinstance(key, jax.core.Tracer):
            raise ValueError(INSIDE)
        return jax.tree.map(lambda a: a[0], self.draw(key[None]))

    def draw(self, task_keys: jax.Array) -> Task:
        """The episodes of keys [tasks], read now. Raises: as `sample`."""
        if isinstance(task_keys, jax.core.Tracer):
            raise ValueError(INSIDE)
        return _finished(self.given(self.read(task_keys), task_keys), task_keys)

    def plan(self, key: jax.Array) -> Plan:
        """Which classes and examples `sample(key)` has: numbers in the data set."""
        return self.planner.plan(key)

    def given(self, raw: Raw, key: jax.Array, mesh: Any = None) -> Given:
        """What was read, for a compiled program; key: any of the run's; mesh: of the
        devices on which it is."""
        planner = self.planner
        if mesh is not None:
            planner = meshes.replicated(planner, mesh)
        return Given(raw, planner, jax.random.key_impl(key))

    def read(self, task_keys: jax.Array) -> Raw:
        """The episodes of keys [tasks], on the host."""
        plans = jax.device_get(_plans(self.planner, jax.random.clone(task_keys)))
        rows = lambda slots: self._records(slots.example)
        return Raw(plans, rows(plans.support), rows(plans.query))

    def steps(
        self, key_data: jax.Array, first: int, last: int, tasks: int, own: np.ndarray
    ) -> Iterator[Raw]:
        """Of the tasks of the meta-steps from `first` to before `last` those with the
        places `own`, [tasks, ...] each, read by threads of grain ahead of time."""
        try:
            import grain
        except ImportError as error:
            raise ImportError(
                "episodes of records are read by grain: pip install 'jaxmeta[stream]'"
            ) from error

        def one(step):
            key_tasks, _ = keys.parts(keys.step(key_data, int(step)))
            return self.read(keys.tasks(key_tasks, tasks)[own])

        if first >= last:
            return iter(())
        options = grain.ReadOptions(self.threads, self.ahead)
        planned = grain.MapDataset.range(first, last).map(one)
        return iter(planned.to_iter_dataset(options))

    def _records(self, example: np.ndarray) -> Any:
        """Arrays [tasks, n, ...] of examples [tasks, n] by their place in the data set;
        None of none."""
        if not example.size:
            return None
        found = self.dataset.read(example.ravel())
        shape = lambda a: a.reshape(*example.shape, *a.shape[1:])
        return jax.tree.map(shape, found)


@jax.jit
def _finished(given: Given, task_keys: jax.Array) -> Task:
    return given.draw(task_keys)


@jax.jit
def _plans(planner: Planner, task_keys: jax.Array) -> Plan:
    """Plans [tasks, ...], their keys as data."""
    plans = jax.vmap(planner.plan)(task_keys)
    return plans._replace(key=jax.random.key_data(plans.key))


def chunks(
    stream: Streamed,
    key_data: jax.Array,
    first: int,
    last: int,
    tasks: int,
    chunk: int,
    mesh: Any = None,
) -> tuple[int, Iterator[Given]]:
    """How many meta-steps fit into a chunk, at most `chunk`, and the chunks: arrays
    [chunk, tasks, ...], the last one filled up with what is not used. With a mesh each
    process reads the tasks of its own devices."""
    own, key_data = meshes.places(tasks, mesh), meshes.on_one_device(key_data)
    key_tasks, _ = keys.parts(keys.step(key_data, first))
    some = stream.read(keys.tasks(key_tasks, tasks)[own])
    size = sum(a.nbytes for a in jax.tree.leaves(some)) * tasks // len(own)
    chunk = max(1, min(chunk, CHUNK_BYTES // size))

    def several():
        steps = stream.steps(key_data, first, last, tasks, own)
        for done in range(first, last, chunk):
            parts = [next(steps) for _ in range(min(chunk, last - done))]
            parts += parts[:1] * (chunk - len(parts))
            raw = jax.tree.map(lambda *a: np.stack(a), *parts)
            if mesh is None:
                raw = jax.tree.map(to_device, raw)
            else:
                raw = meshes.from_processes(raw, own, tasks, mesh, axis=1)
            yield stream.given(raw, key_data, mesh)

    return chunk, several()


class _AskedError(Exception):
    """Carries the number of tasks that a meta-step draws."""


class Probe:
    """A sampler that only notes how many tasks are drawn at once."""

    def draw(self, task_keys: jax.Array) -> Task:
        """Raises: _AskedError, with the number."""
        raise _AskedError(len(task_keys))

    def parts(self, tasks: int) -> Given:
        """Likewise, of all devices together."""
        raise _AskedError(tasks)

    def sample(self, key: jax.Array) -> Task:
        """As that of `Given`."""
        return Given.sample(self, key)  # type: ignore[arg-type]


def tasks_of(step, state: Any, key: jax.Array) -> int:
    """How many tasks a meta-step `step(state, sampler, key)` draws."""
    try:
        jax.eval_shape(lambda state, key: step(state, Probe(), key), state, key)
    except _AskedError as asked:
        return asked.args[0]
    raise ValueError("sampler: this jm.Outer draws no tasks; give sampler=None")
