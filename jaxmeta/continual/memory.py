"""A memory of few examples, a uniform sample of all that a stream brought so far.

Vitter. Random Sampling with a Reservoir. ACM Trans. Math. Software 1985, algorithm R: the
i-th example takes a place drawn from 1..i, if there is such a place in the memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import keys
from jaxmeta.batches import examples
from jaxmeta.boundary import entered
from jaxmeta.continual import online
from jaxmeta.types import Batch, InitFn, PyTree


class Memory(NamedTuple):
    """Examples that were kept, and how many there have been."""

    x: PyTree  # [places, ...]
    y: PyTree  # [places, ...]
    seen: jax.Array  # [] int32


class WithMemory(NamedTuple):
    """The state of a method that remembers: parameters, their optimiser's state, memory."""

    params: PyTree
    opt_state: Any
    memory: Memory


def begun(
    init: InitFn, optimizer: optax.GradientTransformation, places: int
) -> Callable[[jax.Array, Batch], WithMemory]:
    """`Online.init` of such a state, nothing remembered yet."""

    def first(key, batch):
        kept = empty(batch._replace(x=entered(batch.x)), places)
        return WithMemory(*online.begun(init, optimizer, key), kept)

    return first


def empty(batch: Batch, places: int) -> Memory:
    """A memory for examples like those of a batch."""
    blank = lambda a: jnp.zeros((places, *a.shape[1:]), a.dtype)
    x, y = jax.tree.map(blank, (batch.x, batch.y))
    return Memory(x, y, jnp.zeros((), jnp.int32))


def remembering(memory: Memory, batch: Batch, key: jax.Array) -> Memory:
    """The memory after the examples of a batch that count, in their order."""
    n = examples(batch)
    counts = jnp.ones(n, bool) if batch.mask is None else batch.mask > 0
    places = len(jax.tree.leaves(memory.x)[0])

    def one(memory, given):
        row, counts, i = given
        drawn = jax.random.randint(keys.fold(key, i), (), 0, memory.seen + 1)
        place = jnp.where(memory.seen < places, memory.seen, drawn)
        place = jnp.where(counts, place, places)  # beyond the end: kept nowhere
        put = lambda kept, new: kept.at[place].set(new, mode="drop")
        x, y = jax.tree.map(put, (memory.x, memory.y), row)
        return Memory(x, y, memory.seen + counts), None

    given = (batch.x, batch.y), counts, jnp.arange(n)
    return jax.lax.scan(one, memory, given)[0]


def recalled(memory: Memory, number: int, key: jax.Array) -> Batch:
    """Different examples of the memory, drawn uniformly; masked where it has fewer."""
    places = len(jax.tree.leaves(memory.x)[0])
    draws = jax.random.uniform(key, (places,))
    draws = jnp.where(jnp.arange(places) < memory.seen, draws, -1.0)
    values, chosen = jax.lax.top_k(draws, number)
    x, y = jax.tree.map(lambda a: a[chosen], (memory.x, memory.y))
    return Batch(x, y, (values >= 0).astype(jnp.float32))
