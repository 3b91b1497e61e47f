"""Samplers, as programs and as arguments of programs.

Some are no pytrees: a plain class with a `sample` method is enough.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from jaxmeta.batches import to_device
from jaxmeta.boundary import are_values, with_types
from jaxmeta.checks import native

S = TypeVar("S")
R = TypeVar("R")


def one_program(sample: Callable[[S, jax.Array], R]) -> Callable[[S, jax.Array], R]:
    """Decorator of a sampler's `sample`: where it is called with values, outside of any
    program, it is one program, in place of some sixty of a line each."""
    run = jax.jit(sample)

    @functools.wraps(sample)
    def drawn(self: S, key: jax.Array) -> R:
        return (run if are_values((self, key)) else sample)(self, key)

    drawn.__dict__["is_program"] = True
    return drawn


@jax.tree_util.register_pytree_node_class
class Plain:
    """An object whose arrays are leaves, so that they enter a program as arguments.

    Arrays are looked for among its attributes, those of its class, and in their tuples,
    lists and dicts. All else is part of the program, and compiled anew when it changes.
    """

    def __init__(self, arrays, rest: "_Rest"):
        self.arrays, self.rest = arrays, rest

    @one_program
    def sample(self, key: jax.Array):
        """That of the object, with these arrays in the place of its own."""
        return self.rest.with_arrays(self.arrays).sample(key)

    def tree_flatten(self):
        """The arrays; the object without them, compared by value."""
        return self.arrays, self.rest

    @classmethod
    def tree_unflatten(cls, rest, arrays):
        """The inverse."""
        return cls(tuple(arrays), rest)


class _Rest:
    """A sampler without its arrays: equal if class and all else are, types included."""

    def __init__(self, sampler, tree, others):
        self.sampler, self.tree, self.others = sampler, tree, others
        self._known = type(sampler), tree, with_types(others)

    def with_arrays(self, arrays):
        """The sampler with other arrays."""
        given = iter(arrays)
        leaves = [next(given) if a is _ARRAY else a for a in self.others]
        sampler = copy.copy(self.sampler)
        for name, value in jax.tree.unflatten(self.tree, leaves).items():
            object.__setattr__(sampler, name, value)
        return sampler

    def __eq__(self, other):
        return isinstance(other, _Rest) and self._known == other._known

    def __hash__(self):
        return hash(self._known)


_ARRAY = "an array"  # its place among the attributes


def as_pytree(sampler: Any, what: str = "sampler") -> Any:
    """A sampler that can be an argument of a program; pytrees are returned as they are.

    Raises: ValueError for a plain object with attributes that can't be compared or hide
        arrays, or that draws from a generator of its own.

    >>> import jax, jax.numpy as jnp, jaxmeta as jm
    >>> class Lines:
    ...     slopes = jnp.array([1.0, 2.0])
    ...     def __init__(self):
    ...         self.x = jnp.linspace(0.0, 1.0, 5)[:, None]
    ...     def sample(self, key):
    ...         batch = jm.Batch(self.x, jax.random.choice(key, self.slopes) * self.x)
    ...         return jm.Task(batch, batch)
    >>> report = jm.evaluate(jm.nearest_neighbour(None), (), Lines(),
    ...                      num_tasks=4, key=jax.random.key(0))
    >>> report.mean["loss"]
    0.0
    """
    leaves = jax.tree.leaves(sampler)
    if len(leaves) != 1 or leaves[0] is not sampler:
        return sampler
    attributes = dict(getattr(sampler, "__dict__", {}))
    for kind in type(sampler).__mro__:
        for name, value in vars(kind).items():
            if _is_array(value):
                attributes.setdefault(name, value)
    leaves, tree = jax.tree.flatten(attributes)
    for leaf in leaves:
        _check_attribute(leaf, type(sampler).__name__, what)
    rest = _Rest(sampler, tree, [_ARRAY if _is_array(a) else a for a in leaves])
    try:
        hash(rest)
    except TypeError as error:
        raise ValueError(_sentence(what, type(sampler).__name__, error)) from error
    arrays = (a for a in leaves if _is_array(a))
    return Plain(tuple(to_device(native(a)) for a in arrays), rest)


def task_shapes(sampler: Any) -> Any:
    """A task of a sampler, shapes and types alone: traced once for all samplers that
    differ in the values of their arrays only."""
    return jax.eval_shape(_sampled, as_pytree(sampler), jax.random.key(0))


def one_task(sampler: Any, key: jax.Array):
    """`sampler.sample(key)` of a pytree, by its own program if it has one."""
    own = getattr(getattr(type(sampler), "sample", None), "is_program", False)
    return sampler.sample(key) if own else _one_task(sampler, key)


def _sampled(sampler, key: jax.Array):
    return sampler.sample(key)


_one_task = jax.jit(_sampled)


def _is_array(value) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc"
    return isinstance(value, jax.Array)


def _check_attribute(value, name: str, what: str) -> None:
    """Raise ValueError for what would be a constant though it changes."""
    if isinstance(value, (np.random.Generator, np.random.RandomState)):
        raise ValueError(
            f"{what}: {name} has a random generator of numpy, whose draws would be the "
            "same for all tasks of a program; expected sample(key) to draw from its key"
        )
    hidden = [
        v for v in jax.tree.leaves(getattr(value, "__dict__", {})) if _is_array(v)
    ]
    if hidden and not callable(value):
        raise ValueError(_sentence(what, name, f"{type(value).__name__} holds arrays"))


def _sentence(what, name, why) -> str:
    return (
        f"{what}: a plain {name} has attributes that can't be compared ({why}); expected "
        "arrays, numbers, strings, tuples, lists or dicts, or a class registered with "
        "jax.tree_util.register_dataclass"
    )
