"""The task axis: a function of one task as a function of a batch of them.

The only place that knows whether tasks run at once, in chunks or one by one. All three
give the same numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp

from jaxmeta import checks, defaults, keys, meshes
from jaxmeta.types import PyTree


def number_of(tasks: PyTree) -> int:
    """Tasks in a batch of tasks, a tree of arrays [tasks, ...]."""
    return jax.tree.leaves(tasks)[0].shape[0]


def inputs_of(tasks: Any) -> int:
    """Numbers in the support and query inputs of one task of a batch."""
    inputs = jax.tree.leaves((tasks.support.x, tasks.query.x))
    return sum(a.size for a in inputs) // number_of(tasks)


def keys_of(
    key: jax.Array | None, num_tasks: int, first: jax.Array | int = 0
) -> jax.Array | None:
    """A key for each task, fold_in(key, i) for i from `first` on; None without a key."""
    if key is None:
        return None
    checks.check_key(key)
    return keys.tasks(key, num_tasks, first)


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


def over_devices(
    f: Callable,
    shared: tuple,
    operands: tuple,
    tasks_at_once: int | None,
    mesh: Any,
) -> PyTree:
    """f(*shared, *one task's operands) of all tasks, [tasks] on each array, which are split
    over a mesh; what it gives is whole on each device. mesh: None = one device."""

    def own(shared, *operands):
        return over_tasks(lambda *given: f(*shared, *given), tasks_at_once)(*operands)

    if mesh is None:
        return own(shared, *operands)
    given = meshes.SHARED, *[meshes.SPLIT] * len(operands)
    found = meshes.split(own, mesh, given, meshes.SPLIT)(shared, *operands)
    return meshes.gathered(found, mesh)


def _even(n: int, most: int) -> int:
    """Tasks in a chunk: at most so many, and no remainder, which is another program to
    compile, if chunks need not be less than half as large for that."""
    size = min(most, n)
    return next((m for m in range(size, size // 2, -1) if n % m == 0), size)


class Sums(NamedTuple):
    """What chunks of tasks add up to, those left out that are not finite."""

    gradient: PyTree
    value: PyTree  # (mean, means) of each chunk
    fine: jax.Array  # [] chunks that count


def gradient_over_tasks(
    f: Callable,
    tasks_at_once: int | None = None,
    reduce: meshes.Reduce = "mean",
    mesh: Any = None,
    step: jax.Array | int = 0,
) -> Callable:
    """Value and gradient of a mean over tasks, gradients added up chunk by chunk.

    A chunk whose value or gradient is not finite is left out of the mean, unless all are.

    Args:
        f: (params, batch of tasks, ...) -> (mean [], means), of any number of tasks.
        tasks_at_once: tasks in one chunk; None = the default of the backend.
        reduce, mesh: as in `meta_gradient`; with a mesh this runs within `meshes.split`.
        step: [] meta-steps done.

    Returns: (params, tasks, ...) -> ((mean, means), gradient like params, [] the share of
        the tasks that were left out).
    Raises: ValueError if tasks_at_once does not divide the number of tasks.
    """
    of_chunk = jax.value_and_grad(f, has_aux=True)

    def gradient(params, tasks, *others):
        n = number_of(tasks)
        size = _chunk(n, tasks_at_once, tasks)
        if size == n and mesh is None:
            return *of_chunk(params, tasks, *others), jnp.zeros(())

        def one(chunk):
            value, grads = of_chunk(params, *chunk)
            fine = finite((value[0], grads))
            kept = lambda tree: jax.tree.map(lambda a: jnp.where(fine, a, 0), tree)
            return Sums(kept(grads), kept(value), fine.astype(value[0].dtype))

        parts = lambda a: jnp.reshape(a, (n // size, size, *a.shape[1:]))
        given = tasks, *others
        if reduce == "tree":
            sums = _added_in_pairs(one, params, jax.tree.map(parts, given), step)
        elif size == n:
            sums = one(given)
        else:
            sums = _added(one, params, jax.tree.map(parts, given))
        if mesh is not None:
            sums = meshes.summed(sums, mesh, reduce)
        if reduce == "tree":  # apart from what the optimiser computes of it, see below
            once = _unknown(step, 1)
            means = jax.lax.fori_loop(0, once, lambda i, sums: _means(sums), sums)
        else:
            means = _means(sums)
        number = n // size * meshes.size_of(mesh)
        return means.value, means.gradient, (number - sums.fine) / number

    return gradient


def _means(sums: Sums) -> Sums:
    """Of the chunks that count; of none NaN, and the step is not taken."""
    divided = lambda a: a / sums.fine.astype(a.dtype)
    value, gradient = jax.tree.map(divided, (sums.value, sums.gradient))
    return Sums(gradient, value, sums.fine)


def _unknown(step, number: int) -> jax.Array:
    """The number, of which a compiler can't know that it is it."""
    return jnp.where(jnp.asarray(step) < 0, 0, number)


def _chunk(n: int, tasks_at_once: int | None, tasks: PyTree) -> int:
    """Tasks of a chunk. Raises: ValueError if they do not divide n."""
    size = min(tasks_at_once or defaults.tasks_at_once(n, inputs_of(tasks)), n)
    if n % size:
        raise ValueError(
            f"tasks_at_once: {n} tasks can't be run {size} at once; expected a "
            f"divisor of {n}, or a number >= {n} for all at once"
        )
    return size


def _added(one: Callable, params: PyTree, chunks: PyTree) -> Sums:
    """The sum over chunks, one after the other."""

    def add(total, chunk):
        sums = one(chunk)
        return jax.tree.map(jnp.add, total, sums.gradient), sums[1:]

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, each = jax.lax.scan(add, zeros, chunks)
    return Sums(total, *jax.tree.map(partial(jnp.sum, axis=0), each))


def _added_in_pairs(one: Callable, params: PyTree, chunks: PyTree, step) -> Sums:
    """The sum over 2^k chunks as a binary tree: k + 1 partial sums are kept at a time.

    After chunk i the sums of 1, 2, 4, ... neighbours are joined as the digits of i + 1
    carry. How often the loop runs is unknown to the compiler: it would take a loop of one
    chunk apart, merge it with what is around, and round differently.
    """
    number = number_of(chunks)
    levels = number.bit_length()
    data, wrapped = keys.unwrapped(chunks)  # each key is used in one round of the loop
    chunk = lambda i: wrapped(jax.tree.map(lambda a: a[i], data))
    rows = lambda n: lambda a: jnp.zeros((n, *a.shape), a.dtype)
    each = jax.tree.map(rows(number), jax.eval_shape(one, chunk(0))[1:])

    def join(i, carry):
        kept, each = carry

        def up(at):
            level, total = at
            left = jax.tree.map(lambda a: a[level], kept)
            return level + 1, jax.tree.map(jnp.add, left, total)

        sums = one(chunk(i))
        full = lambda at: (i >> at[0]) & 1 == 1
        level, total = jax.lax.while_loop(full, up, (0, sums.gradient))
        put = lambda a, value, place: a.at[place].set(value)
        kept = jax.tree.map(lambda a, t: put(a, t, level), kept, total)
        return kept, jax.tree.map(lambda a, v: put(a, v, i), each, sums[1:])

    empty = jax.tree.map(rows(levels), params)
    times = _unknown(step, number)
    kept, each = jax.lax.fori_loop(0, times, join, (empty, each))
    while number > 1:
        number //= 2
        each = jax.tree.map(lambda a: a[::2] + a[1::2], each)
    return Sums(*jax.tree.map(lambda a: a[-1], (kept, *each)))


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
        auto = jax.sharding.NamedSharding(meshes.automatic(mesh), a.sharding.spec)
        return jax.device_put(a, auto)

    return jax.tree.map(move, tree)
