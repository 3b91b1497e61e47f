"""Samplers that are no pytrees: a plain class with a `sample` method is enough."""

import copy
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_pytree_node_class
class Plain:
    """An object whose arrays are leaves, so that they enter a program as arguments.

    Its other attributes are part of the program: they must be hashable, and a program is
    compiled anew when they change.
    """

    def __init__(self, sampler: Any, arrays: dict[str, Any]):
        self.sampler, self.arrays = sampler, arrays

    def sample(self, key: jax.Array):
        """That of the object, with these arrays in the place of its own."""
        sampler = copy.copy(self.sampler)
        for name, value in self.arrays.items():
            object.__setattr__(sampler, name, value)
        return sampler.sample(key)

    def tree_flatten(self):
        """Arrays by name; the class and the other attributes, compared by value."""
        names = tuple(self.arrays)
        return tuple(self.arrays.values()), (_Rest(self.sampler, names), names)

    @classmethod
    def tree_unflatten(cls, rest, values):
        """The inverse."""
        return cls(rest[0].sampler, dict(zip(rest[1], values, strict=True)))


class _Rest:
    """A sampler without its arrays: equal if class and other attributes are."""

    def __init__(self, sampler, names):
        self.sampler = copy.copy(sampler)
        for name in names:
            object.__setattr__(self.sampler, name, None)
        others = vars(self.sampler).items()
        self._known = (type(sampler), tuple(sorted(others, key=lambda kv: kv[0])))

    def __eq__(self, other):
        return isinstance(other, _Rest) and self._known == other._known

    def __hash__(self):
        return hash(self._known)


def as_pytree(sampler: Any, what: str = "sampler") -> Any:
    """A sampler that can be an argument of a program; pytrees are returned as they are.

    Raises: ValueError for a plain object whose attributes can't be compared.

    >>> import jax, jax.numpy as jnp, jaxmeta as jm
    >>> class Lines:
    ...     slopes = jnp.array([1.0, 2.0])
    ...     def __init__(self):
    ...         self.x = jnp.linspace(0.0, 1.0, 5)[:, None]
    ...     def sample(self, key):
    ...         batch = jm.Batch(self.x, jax.random.choice(key, self.slopes) * self.x)
    ...         return jm.Task(batch, batch)
    >>> report = jm.evaluate(jm.baselines.nearest_neighbour(None), (), Lines(),
    ...                      num_tasks=4, key=jax.random.key(0))
    >>> report.mean["loss"]
    0.0
    """
    leaves = jax.tree.leaves(sampler)
    if len(leaves) != 1 or leaves[0] is not sampler:
        return sampler
    own = getattr(sampler, "__dict__", {})
    is_array = lambda value: isinstance(value, (jax.Array, np.ndarray))
    trees = {n: v for n, v in own.items() if any(map(is_array, jax.tree.leaves(v)))}
    plain = Plain(sampler, trees)
    try:
        hash(_Rest(sampler, tuple(trees)))
    except TypeError as error:
        raise ValueError(
            f"{what}: a plain {type(sampler).__name__} has attributes that can't be "
            f"compared ({error}); expected arrays, numbers, strings or tuples, or a class "
            "registered with jax.tree_util.register_dataclass"
        ) from error
    return plain
