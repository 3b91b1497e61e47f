"""Meta-test: many unseen tasks, the mean and its 95 % interval."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import checks, defaults, meshes
from jaxmeta import keys as streams
from jaxmeta.batches import to_device
from jaxmeta.boundary import entered, looked
from jaxmeta.task_axis import as_auto, inputs_of, number_of, over_devices
from jaxmeta.tasks.plain import as_pytree, task_shapes
from jaxmeta.tasks.streamed import Streamed
from jaxmeta.types import Batch, MetaLearner, Sampler, Task

BLOCK = 64  # tasks that are tested in one vmap, or read at once, at most


class Report(NamedTuple):
    """Metrics over many tasks; keys as in the metrics of the learner's `loss`."""

    mean: dict[str, float]
    ci95: dict[
        str, float
    ]  # half a 95 % interval of the mean over tasks, see `interval`
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
    metrics: Callable[..., Any] | None = None,
    mesh: Any = None,
) -> Report:
    """Adapt to many tasks, judge on their query sets.

    Args:
        learner, params: what to test.
        sampler: where tasks come from; task i is `sampler.sample(fold_in(key, i))`, so
            two learners evaluated with one key see the same tasks.
        num_tasks: how many. key: typed key.
        tasks_at_once: tasks in one vmap; None = the default of the backend.
        metrics: (outputs, query) -> {name: [] value}, what else to report of each task,
            e.g. `jm.metrics.classification`; None = what the learner's loss reports.
        mesh: with an axis "tasks", over whose devices the tasks are split; None = one.

    Returns: a `Report`; its means are over all tasks, a diverged one included.
    Raises: ValueError for fewer than 2 tasks or a key of the old type.

    >>> import jax, jaxmeta as jm
    >>> learner = jm.nearest_neighbour(ways=None)
    >>> report = jm.evaluate(learner, (), jm.tasks.sinusoid(), key=jax.random.key(0))
    >>> report.num_tasks, report.per_task["loss"].shape
    (600, (600,))
    """
    checks.check_key(key)
    checks.check_sizes(2, num_tasks=num_tasks)
    checks.check_sampler(sampler)
    if metrics is not None:
        checks.check_functions(metrics=metrics)
    sampler = sampler if isinstance(sampler, Streamed) else as_pytree(sampler)
    _check_learned(learner, params, tasks_at_once)
    if tasks_at_once is None:
        tasks_at_once = default_at_once(sampler, key)
    if mesh is None:
        meshes.check_alone("params", params)
    else:
        meshes.check_mesh(mesh)
    own = streams.tasks(key, num_tasks)
    if isinstance(sampler, Streamed):
        found = _of_records(learner, params, sampler, own, tasks_at_once, metrics, mesh)
        return summarize(found)
    at_once = min(tasks_at_once, num_tasks)
    if mesh is None:
        return summarize(_metrics(learner, params, sampler, own, at_once, metrics))
    own = streams.tasks(key, _whole(num_tasks, mesh))
    params, sampler, own = meshes.replicated((params, sampler, own), mesh)
    found = _metrics(learner, params, sampler, own, at_once, metrics, mesh)
    return summarize({name: np.asarray(v)[:num_tasks] for name, v in found.items()})


def _whole(number: int, mesh) -> int:
    """So many tasks, and more, that each device of a mesh has as many."""
    size = meshes.size_of(mesh)
    return -(-number // size) * size


def default_at_once(sampler, key: jax.Array) -> int:
    """Tasks in one vmap of a test, by the backend and the size of a task; 64 at most."""
    streamed = isinstance(sampler, Streamed)
    one = sampler.sample(streams.tasks(key, 1)[0]) if streamed else task_shapes(sampler)
    shape = lambda a: jax.ShapeDtypeStruct((BLOCK, *a.shape), a.dtype)
    tasks = jax.tree.map(shape, one)
    return defaults.tasks_at_once(BLOCK, inputs_of(tasks))


def _of_records(
    learner, params, sampler: Streamed, keys, tasks_at_once: int, metrics, mesh
):
    """Metrics [num_tasks], the tasks read block by block."""
    found = []
    for i in range(0, len(keys), BLOCK):
        some = keys[i : i + BLOCK]
        number = len(some)
        if mesh is not None:
            some = some[np.arange(_whole(number, mesh)) % number]
        places = meshes.places(len(some), mesh)
        raw = sampler.read(some[places])
        if mesh is not None:  # each process reads the tasks of its own devices
            raw = meshes.from_processes(raw, places, len(some), mesh)
            params, some = meshes.replicated((params, some), mesh)
        given = sampler.given(raw, some, mesh)
        how = {"tasks_at_once": min(tasks_at_once, number), "metrics": metrics}
        values = _read_metrics(learner, params, given, some, **how, mesh=mesh)
        found.append({k: np.asarray(v)[:number] for k, v in values.items()})
    return {k: np.concatenate([f[k] for f in found]) for k in found[0]}


def evaluate_episodes(
    learner: MetaLearner,
    params: Any,
    tasks: Task | Iterable[Task],
    *,
    key: jax.Array | None = None,
    tasks_at_once: int | None = None,
    mesh: Any = None,
) -> Report:
    """Adapt to given episodes, judge on their query sets.

    Args:
        learner, params: what to test.
        tasks: a batch of tasks, `Task(Batch(x, y), Batch(x, y))` of arrays [tasks,
            examples, ...]; or tasks one by one, which may differ in size (each new size
            compiles anew). Images of type uint8 are taken as 0..255.
        key: typed key for learners that adapt at random; None = without.
        tasks_at_once: tasks in one vmap, for a batch; None = the default of the backend.
        mesh: as in `evaluate`, for a batch.

    Returns: a `Report`; task i of a batch gets the key fold_in(key, i).
    Raises: ValueError for no task, shapes that do not fit, labels out of range, NaN.

    >>> import numpy as np, jaxmeta as jm
    >>> x, y = np.eye(3)[None], np.arange(3)[None]  # one task, three classes
    >>> tasks = jm.Task(jm.Batch(x, y), jm.Batch(x + 0.1, y))
    >>> learner = jm.nearest_neighbour(ways=3)
    >>> evaluate_episodes(learner, (), tasks).mean["accuracy"]
    1.0
    """
    if key is not None:
        checks.check_key(key)
    if mesh is not None:
        meshes.check_mesh(mesh)
    _check_learned(learner, params, tasks_at_once)
    tasks = _given_tasks(tasks)
    one_by_one = not isinstance(tasks, Task)
    groups = (
        [jax.tree.map(lambda a: a[None], t) for t in tasks] if one_by_one else [tasks]
    )
    if not groups or number_of(groups[0]) == 0:
        raise ValueError("tasks: expected at least one episode, got none")
    found = []
    for i, group in enumerate(groups):
        group = as_auto(jax.tree.map(to_device, group))
        group = Task(*(b._replace(x=entered(b.x)) for b in group))
        _check_episodes(learner, params, group)
        n = number_of(group)
        size = tasks_at_once or defaults.tasks_at_once(n, inputs_of(group))
        own, where = None if key is None else streams.tasks(key, n, i), None
        if mesh is None:
            meshes.check_alone("params, tasks", params, group)
        elif n > 1:  # a task alone can't be split
            where = mesh
            group, own = jax.tree.map(
                lambda a, n=n: a[np.arange(_whole(n, mesh)) % n], (group, own)
            )
            params, group, own = meshes.replicated((params, group, own), mesh)
        values = _given_metrics(learner, params, group, own, min(size, n), where)
        found.append({k: np.asarray(v)[:n] for k, v in values.items()})
    return summarize({k: np.concatenate([f[k] for f in found]) for k in found[0]})


def _check_learned(learner, params, tasks_at_once) -> None:
    """Raise ValueError unless it is a learner, with parameters as many as its own."""
    checks.check_learner(learner)
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)
    own = jax.tree.leaves(jax.eval_shape(learner.init, jax.random.key(0)))
    given = jax.tree.leaves(params)
    if len(given) < len(own):
        raise ValueError(
            "params: expected a tree like that of learner.init(key), with "
            f"{len(own)} arrays, got {type(params).__name__} with {len(given)}; those "
            "that were trained are `state.params`"
        )


def _given_tasks(tasks) -> Task | list[Task]:
    """A batch of tasks, or a list of them. Raises: ValueError for anything else."""
    if not isinstance(tasks, Task):
        tasks = list(tasks) if isinstance(tasks, Iterable) else [tasks]
    for task in [tasks] if isinstance(tasks, Task) else tasks:
        if not isinstance(task, Task) or not all(isinstance(b, Batch) for b in task):
            raise ValueError(
                "tasks: expected jm.Task(jm.Batch(x, y), jm.Batch(x, y)) of arrays, or "
                f"several of them, got {type(task).__name__}"
            )
        if not all(hasattr(a, "shape") for a in jax.tree.leaves(task)):
            raise ValueError(
                "tasks: expected arrays in each batch, got lists or numbers"
            )
    array = lambda a: a if isinstance(a, jax.Array) else checks.to_array("tasks", a)
    return jax.tree.map(array, tasks)


def _check_episodes(learner, params, tasks: Task) -> None:
    """Raise ValueError for shapes, labels or values that do not fit.

    Learners look at labels that are concrete; the tasks with the extremes suffice.
    """
    shapes = [tuple(a.shape) for a in jax.tree.leaves(tasks)]
    examples = jax.tree.leaves([(batch.x, batch.y) for batch in tasks])
    if len({s[0] for s in shapes}) > 1 or min(a.ndim for a in examples) < 2:
        raise ValueError(
            f"tasks: expected arrays [tasks, examples, ...] of as many tasks, got {shapes}"
        )
    seen = jax.tree.map(np.asarray, tasks)  # of which to take one compiles nothing
    for what, batch in zip(("support", "query"), seen, strict=True):
        checks.check_batch(jax.tree.map(lambda a: a[0], batch), what)
    suspects = {0}
    for batch in seen:
        shape = jax.tree.leaves(batch.x)[0].shape[:2]
        keep = np.ones(shape, bool) if batch.mask is None else batch.mask > 0
        for leaf in jax.tree.leaves(batch.x):
            checks.check_finite(leaf[keep], "tasks, inputs")
        for leaf in jax.tree.leaves(batch.y):
            checks.check_finite(leaf[keep], "tasks, targets")
            each = np.where(keep, leaf.reshape(*keep.shape, -1)[..., 0], 0)
            suspects |= {int(each.min(axis=1).argmin()), int(each.max(axis=1).argmax())}
    for i in sorted(suspects):
        task = jax.tree.map(lambda a, i=i: to_device(a[i]), seen)
        checks.check_task(task)
        if not looked(learner, params, task):
            jax.eval_shape(lambda p, task=task: learner.loss(p, task), params)


@partial(jax.jit, static_argnames=("learner", "tasks_at_once", "mesh"))
def _given_metrics(learner, params, tasks, keys, tasks_at_once, mesh=None):
    one = lambda params, task, key: learner.loss(params, task, key)[1]
    return over_devices(one, (params,), (tasks, keys), tasks_at_once, mesh)


def summarize(per_task: dict[str, Any]) -> Report:
    """A `Report` of metrics [tasks] each; a task diverged if its `loss`
    (or else its first metric) is not finite.

    Raises: ValueError for no metric, no task, or metrics that are not [tasks] each.

    >>> print(summarize({"accuracy": [0.5, 0.7, 0.6]}))
    accuracy 0.6000 ± 0.2484 (3 tasks)
    """
    values = {name: np.asarray(v, np.float64) for name, v in per_task.items()}
    shapes = {v.shape for v in values.values()}
    if len(shapes) != 1 or len(*shapes) != 1:
        raise ValueError(
            "per_task: expected metrics [tasks] each, of as many tasks, got shapes "
            f"{[v.shape for v in values.values()]}"
        )
    ((num_tasks,),) = shapes
    checks.check_sizes(tasks=num_tasks)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = {name: float(v.mean()) for name, v in values.items()}
        ci95 = {name: interval(v, name == "accuracy") for name, v in values.items()}
    judged = values.get("loss", next(iter(values.values())))
    diverged = int((~np.isfinite(judged)).sum())
    return Report(mean, ci95, values, num_tasks, diverged)


def interval(values: np.ndarray, share: bool = False) -> float:
    """Half of the 95 % confidence interval of a mean, by Student's t.

    Args: values: [tasks], one value a task. share: whether they lie in 0..1. Then a
        spread of 0 (all tasks perfect) is no certainty: with n tasks, what happens in
        less than a share p of all tasks, (1 - p)^n = 0.05, may not have been seen, and p
        is the half interval (the "rule of three", about 3 / n).
    Returns: NaN for one task, which has no spread.

    >>> round(interval(np.ones(100), share=True), 4)
    0.0295
    """
    n = len(values)
    if n == 1:
        return float("nan")
    spread = float(values.std(ddof=1))
    if share and spread == 0:
        return 1 - 0.05 ** (1 / n)
    return students_t(n - 1) * spread / n**0.5


def students_t(freedom: int) -> float:
    """Half a 95 % interval of Student's t, of so many degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats takes long to import

    return float(stdtrit(freedom, 0.975))


def _judged(learner, params, task, key, metrics):
    """Metrics of one task: those of the loss, and of what is predicted."""
    own = learner.loss(params, task, key)[1]
    if metrics is None:
        return own
    adapted = learner.adapt(params, task.support, jax.random.clone(key))
    outputs = learner.predict(adapted, task.query.x, task.query.mask)
    return own | metrics(outputs, task.query)


@partial(jax.jit, static_argnames=("learner", "tasks_at_once", "metrics", "mesh"))
def _read_metrics(learner, params, given, keys, tasks_at_once, metrics, mesh=None):
    def one(params, task, key):
        return _judged(learner, params, task, streams.adapt(key), metrics)

    return over_devices(one, (params,), (given.draw(keys), keys), tasks_at_once, mesh)


@partial(jax.jit, static_argnames=("learner", "tasks_at_once", "metrics", "mesh"))
def _metrics(learner, params, sampler, keys, tasks_at_once, metrics, mesh=None):
    def one(params, sampler, key):
        task = sampler.sample(jax.random.clone(key))
        return _judged(learner, params, task, streams.adapt(key), metrics)

    return over_devices(one, (params, sampler), (keys,), tasks_at_once, mesh)
