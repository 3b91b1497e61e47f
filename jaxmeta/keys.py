"""Every stream of random keys of a run, on one page.

    run key --fold 0--> data --fold step--> split --> tasks --fold i--> task i
                                                  \\-> loss  --fold i--> noise of task i
            --fold 1--> initial parameters
            --fold 2--> validation --fold i--> task i --"adapt"--> noise of its adaptation

A task's key belongs to its sampler, which splits it as it likes, and `fold_in(key, i)` is
`split(key, n)[i]`. So what else is drawn for a task comes from another purpose, a number
that no split reaches.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DATA, INIT, VALIDATION = 0, 1, 2


def data(run: jax.Array) -> jax.Array:
    """Of the tasks and the noise of all meta-steps."""
    return fold(run, DATA)


def init(run: jax.Array) -> jax.Array:
    """Of the initial meta-parameters."""
    return fold(run, INIT)


def validation(run: jax.Array) -> jax.Array:
    """Of the validation tasks."""
    return fold(run, VALIDATION)


def step(data: jax.Array, step: jax.Array | int) -> jax.Array:
    """Of one meta-step."""
    return fold(data, step)


def parts(step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(key of the tasks, key of the noise) of one meta-step."""
    key_tasks, key_loss = jax.random.split(step)
    return key_tasks, key_loss


def fold(key: jax.Array, number: jax.Array | int) -> jax.Array:
    """`fold_in` of one key, or of each key of a population, [members]."""
    if key.ndim:
        return jax.vmap(jax.random.fold_in, (0, None))(key, number)
    return jax.random.fold_in(key, number)


def tasks(key: jax.Array, num_tasks: int, first: jax.Array | int = 0) -> jax.Array:
    """[num_tasks] keys, fold_in(key, i) for i from `first` on."""
    # numpy's of the type that is folded in, which compiles nothing
    numbers = np.arange(num_tasks, dtype=np.uint32)
    numbers = first + (numbers if isinstance(first, int) else jnp.arange(num_tasks))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def unwrapped(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """A tree with typed keys as their data, and what makes it, or a part of it, of them."""
    is_key = lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    data = lambda a: jax.random.key_data(a) if is_key(a) else a

    def wrapped(given):
        wrap = lambda like, a: (
            jax.random.wrap_key_data(a, impl=jax.random.key_impl(like))
            if is_key(like)
            else a
        )
        return jax.tree.map(wrap, tree, given)

    return jax.tree.map(data, tree), wrapped


def purpose(key: jax.Array, name: str) -> jax.Array:
    """A key for one purpose, different from any split of `key` or fold of small numbers."""
    number = zlib.crc32(name.encode()) | 1 << 31
    return jax.random.fold_in(jax.random.clone(key), number)


def adapt(task: jax.Array) -> jax.Array:
    """Of what is drawn in adapting to a task that was sampled with the key `task`."""
    return purpose(task, "adapt")
