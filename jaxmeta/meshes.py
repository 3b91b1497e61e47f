"""Tasks on many devices: an axis of a mesh, and the one sum over it.

A device computes its own share of the tasks, whose keys follow from their places among all
of them, so that the tasks are the same on any number of devices. Parameters are whole on
each device, or laid out over other axes of the mesh, which are the compiler's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmeta import checks
from jaxmeta.types import PyTree

TASKS, MEMBERS = "tasks", "members"
Reduce = Literal["mean", "tree"]
SHARED, SPLIT = PartitionSpec(), PartitionSpec(TASKS)
OF_MEMBERS = PartitionSpec(MEMBERS)


def check_mesh(mesh: Any, axis: str = TASKS) -> None:
    """Raise ValueError unless it is a mesh with the axis."""
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"mesh: expected a jax.sharding.Mesh, got {checks.said(mesh)}; make one with "
            f'jax.make_mesh((jax.device_count(),), ("{axis}",))'
        )
    if axis not in mesh.axis_names:
        raise ValueError(
            f'mesh: expected an axis "{axis}", got one with {mesh.axis_names}; make it with '
            f'jax.make_mesh((jax.device_count(),), ("{axis}",))'
        )


def size_of(mesh: Mesh | None, axis: str = TASKS) -> int:
    """Devices along an axis; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape[axis]


def share(number: int, mesh: Mesh | None, what: str, axis: str = TASKS) -> int:
    """How many of them a device has. Raises: ValueError unless each has as many."""
    size = size_of(mesh, axis)
    if number % size:
        raise ValueError(
            f"{what}: {number} can't be split evenly over the {size} devices of the mesh's "
            f'axis "{axis}"; expected a multiple of {size}'
        )
    return number // size


def automatic(mesh: Mesh) -> Mesh:
    """The mesh with automatic axes (those of `jax.make_mesh` are explicit)."""
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


def split(
    f: Callable, mesh: Mesh, given: Any, found: Any, axis: str = TASKS
) -> Callable:
    """f as each device runs it on its own part.

    Args: given, found: for the arguments and the result, `SHARED` or `SPLIT`, or trees of
        these. axis: of the mesh; others are the compiler's.
    """
    return jax.shard_map(
        f,
        mesh=automatic(mesh),
        in_specs=given,
        out_specs=found,
        axis_names={axis},
        check_vma=False,  # scans that start from zeros are no less right
    )


def first_of(number: int, axis: str = TASKS) -> jax.Array:
    """Within `split`, where each device has `number` tasks: the place of its first."""
    return jax.lax.axis_index(axis) * number


def summed(tree: PyTree, mesh: Mesh, reduce: Reduce) -> PyTree:
    """Within `split`, the sum of a tree over the devices, on each of them.

    reduce: "mean" = one collective; "tree" = in pairs of neighbours, then in pairs of
        pairs, which adds the same numbers in the same order on any number of devices.
    """
    if reduce == "tree":
        size, far = size_of(mesh), 1
        while far < size:
            pairs = [(i, i ^ far) for i in range(size)]
            other = jax.lax.ppermute(tree, TASKS, pairs)
            tree, far = jax.tree.map(jnp.add, tree, other), 2 * far
        return tree
    if len(mesh.axis_names) > 1:  # side by side, arrays laid out over another axis move
        return jax.lax.psum(tree, TASKS)
    flat, back = ravel_pytree(tree)
    return back(jax.lax.psum(flat, TASKS))


def places(number: int, mesh: Mesh | None) -> np.ndarray:
    """Which of so many tasks the devices of this process compute; without a mesh, all."""
    every = np.arange(number)
    if mesh is None:
        return every
    split = NamedSharding(automatic(mesh), SPLIT)
    own = split.addressable_devices_indices_map((number,)).values()
    return np.unique(np.concatenate([every[where] for where in own]))


def from_processes(
    tree: PyTree, own: np.ndarray, number: int, mesh: Mesh, axis: int = 0
) -> PyTree:
    """Arrays over all of so many tasks, of which each process gives those of `places`.

    axis: of the tasks.
    """
    where = PartitionSpec(*[None] * axis, TASKS)

    def whole(a):
        rows = lambda at: np.searchsorted(own, np.arange(number)[at[axis]])
        return jax.make_array_from_callback(
            (*a.shape[:axis], number, *a.shape[axis + 1 :]),
            NamedSharding(automatic(mesh), where),
            lambda at: np.take(a, rows(at), axis),
        )

    return jax.tree.map(whole, tree)


def joined(tree: PyTree) -> PyTree:
    """Within `split`, arrays [own tasks, ...] as arrays of all devices' tasks, in order."""
    return jax.tree.map(lambda a: jax.lax.all_gather(a, TASKS, tiled=True), tree)


def gathered(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Within jit, arrays that were split, whole on every device: each process can read
    them."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(
        tree, NamedSharding(automatic(mesh), SHARED)
    )


def replicated(tree: PyTree, mesh: Mesh, spec: PartitionSpec = SHARED) -> PyTree:
    """A tree on all devices of a mesh; what is laid out over it already stays as it is.

    Typed keys go as their data, since those of one process can't be put on devices of
    another.

    spec: `SPLIT` = each device gets its part.
    """
    everywhere = NamedSharding(automatic(mesh), spec)
    devices = set(mesh.devices.flat)

    def put(a):
        if isinstance(a, jax.core.Tracer):
            return a
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(a))
            return wrap(put(jax.random.key_data(a)))
        there = getattr(a, "sharding", None)
        if (
            isinstance(there, NamedSharding)
            and there.device_set == devices
            and there.mesh.shape == mesh.shape
        ):
            return jax.device_put(a, NamedSharding(everywhere.mesh, there.spec))
        if jax.process_count() == 1:
            return jax.device_put(a, everywhere)
        whole = np.asarray(jnp.asarray(a))  # each process has it, and gives its part
        return jax.make_array_from_callback(
            whole.shape, everywhere, lambda where: whole[where]
        )

    return jax.tree.map(put, tree)


def copied(tree: PyTree) -> PyTree:
    """The same values in memory of their own, where they are.

    Of arrays that are here without a program, of which `jnp.copy` compiles one a shape.
    """

    def one(a):
        here = not isinstance(a, jax.core.Tracer) and getattr(
            a, "is_fully_addressable", True
        )
        return jax.device_put(a, may_alias=False) if here else jnp.copy(a)

    return jax.tree.map(one, tree)


def on_one_device(tree: PyTree) -> PyTree:
    """Arrays that are whole on each device of a mesh, as on one of them."""
    whole = lambda a: isinstance(a, jax.Array) and len(a.devices()) > 1
    one = lambda a: a.addressable_data(0) if whole(a) and a.is_fully_replicated else a
    return jax.tree.map(one, tree)


def check_alone(what: str, *trees: PyTree) -> None:
    """Raise ValueError for arrays on several devices where no mesh is given: each device
    would do all the work."""
    for a in jax.tree.leaves(trees):
        sharding = getattr(a, "sharding", None)
        number = len(getattr(sharding, "device_set", ()))
        if number > 1 and not isinstance(a, jax.core.Tracer):
            raise ValueError(
                f"{what}: has arrays on {number} devices, each of which would do all the "
                "work; give mesh=, whose axis "
                f'"{TASKS}" the tasks are split over'
            )
