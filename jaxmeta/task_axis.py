"""The task axis: a function of one task as a function of a batch of them.

The only place that knows whether tasks run at once, in chunks or one by one. All three
give the same numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from jaxmeta import checks, defaults, keys
from jaxmeta.types import PyTree


def number_of(tasks: PyTree) -> int:
    """Tasks in a batch of tasks, a tree of arrays [tasks, ...]."""
    return jax.tree.leaves(tasks)[0].shape[0]


def inputs_of(tasks: Any) -> int:
    """Numbers in the support and query inputs of one task of a batch."""
    inputs = jax.tree.leaves((tasks.support.x, tasks.query.x))
    return sum(a.size for a in inputs) // number_of(tasks)


def keys_of(key: jax.Array | None, num_tasks: int) -> jax.Array | None:
    """A key for each task, fold_in(key, i); None without a key."""
    if key is None:
        return None
    checks.check_key(key)
    return keys.tasks(key, num_tasks)


def over_tasks(f: Callable, tasks_at_once: int | None = None) -> Callable:
    """f of one task, as a function of batches: what it gives has a [tasks] axis.

    Args:
        f: (trees of one task) -> a tree.
        tasks_at_once: tasks in one vmap, the vmaps following each other; None = all.

    Returns: (trees [tasks, ...]) -> trees [tasks, ...].
    """

    def batched(*operands):
        n = number_of(operands)
        if n == 1:  # a task axis of size 1 makes matrix products slower
            alone = f(*jax.tree.map(lambda a: a[0], operands))
            return jax.tree.map(lambda a: jnp.asarray(a)[None], alone)
        if tasks_at_once is None:
            return jax.vmap(f)(*operands)
        size = _even(n, tasks_at_once)
        return jax.lax.map(lambda given: f(*given), operands, batch_size=size)

    return batched


def _even(n: int, most: int) -> int:
    """Tasks in a chunk: at most so many, and no remainder, which is another program to
    compile, if chunks need not be less than half as large for that."""
    size = min(most, n)
    return next((m for m in range(size, size // 2, -1) if n % m == 0), size)


def gradient_over_tasks(f: Callable, tasks_at_once: int | None = None) -> Callable:
    """Value and gradient of a mean over tasks, gradients added up chunk by chunk.

    A chunk whose value or gradient is not finite is left out of the mean, unless all are.

    Args:
        f: (params, batch of tasks, ...) -> (mean [], means), of any number of tasks.
        tasks_at_once: tasks in one chunk; None = the default of the backend.

    Returns: (params, tasks, ...) -> ((mean, means), gradient like params, [] the share of
        the tasks that were left out).
    Raises: ValueError if tasks_at_once does not divide the number of tasks.
    """
    of_chunk = jax.value_and_grad(f, has_aux=True)

    def gradient(params, tasks, *others):
        n = number_of(tasks)
        at_once = tasks_at_once or defaults.tasks_at_once(n, inputs_of(tasks))
        size = min(at_once, n)
        if n % size:
            raise ValueError(
                f"tasks_at_once: {n} tasks can't be run {size} at once; expected a "
                f"divisor of {n}, or a number >= {n} for all at once"
            )
        if size == n:
            return *of_chunk(params, tasks, *others), jnp.zeros(())

        def accumulate(total, chunk):
            value, grads = of_chunk(params, *chunk)
            fine = finite((value[0], grads))
            add = lambda a, b: a + jnp.where(fine, b, 0)
            return jax.tree.map(add, total, grads), (value, fine)

        split = lambda a: jnp.reshape(a, (n // size, size, *a.shape[1:]))
        chunks = jax.tree.map(split, (tasks, *others))
        zeros = jax.tree.map(jnp.zeros_like, params)
        total, (values, fine) = jax.lax.scan(accumulate, zeros, chunks)
        number = jnp.sum(fine)  # 0: the mean is NaN, and the step is not taken
        mean = jax.tree.map(lambda g: g / number.astype(g.dtype), total)
        means = jax.tree.map(partial(jnp.mean, where=fine), values)
        return means, mean, (n // size - number) / (n // size)

    return gradient


def finite(tree: PyTree) -> jax.Array:
    """[] whether all numbers of a tree are finite."""
    return all_true(are_finite(tree))


def are_finite(tree: PyTree) -> list[jax.Array]:
    """Which numbers of a tree are finite: of each array that can have others."""
    return [
        jnp.isfinite(a)
        for a in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(a), jnp.inexact)
    ]


def all_true(arrays: list[jax.Array]) -> jax.Array:
    """[] whether all are; arrays of one shape are looked at together, in one pass."""
    together: dict[tuple, jax.Array] = {(): jnp.array(True)}
    for a in arrays:
        together[a.shape] = together.get(a.shape, True) & a
    return jnp.all(jnp.stack([jnp.all(a) for a in together.values()]))


def as_auto(tree: PyTree) -> PyTree:
    """Arrays on a mesh with explicit axes (the default of `jax.make_mesh`) on one with
    automatic axes: the tasks of a batch meet in one vmap, which refuses mixed shardings.

    Raises: ValueError for traced arrays on a mesh with explicit axes, which can't be moved.
    """

    def move(a):
        traced = isinstance(a, jax.core.Tracer)
        sharding = getattr(jax.typeof(a) if traced else a, "sharding", None)
        mesh = getattr(sharding, "mesh", None)
        if mesh is None or jax.sharding.AxisType.Explicit not in mesh.axis_types:
            return a
        if traced:
            raise ValueError(
                f"tasks: traced arrays on a mesh with explicit axes {mesh.axis_names}; "
                "make it with axis_types=(jax.sharding.AxisType.Auto,) * "
                f"{len(mesh.axis_names)}"
            )
        kinds = (jax.sharding.AxisType.Auto,) * len(mesh.axis_names)
        auto = jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
        return jax.device_put(a, jax.sharding.NamedSharding(auto, a.sharding.spec))

    return jax.tree.map(move, tree)
