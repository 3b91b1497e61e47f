"""Meta-train a population: seeds, inner rates and meta rates in one compiled program."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta import keys as streams
from jaxmeta.outer import MetaState, init_state
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.training.fit import first_task, sampled_step, warn_of_skipped
from jaxmeta.types import Metrics, Sampler


def fit_population(
    make: Callable[..., tuple[Any, Any]],
    sampler: Sampler,
    *,
    keys: jax.Array,
    steps: int,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
    **swept: Any,
) -> tuple[MetaState, Metrics]:
    """`fit` for every member of a population at once (vmap).

    Member i is the run `fit(*make(**{name: values[i]}), ..., key=keys[i])`. Small
    networks leave most of a device idle, so eight members cost less than eight runs.

    Args:
        make: a member's values, by name -> (learner, optimizer). Only numbers may
            differ between members, no shapes and no counts of steps.
        sampler: the task distribution, the same for all.
        keys: [members] typed keys, `jax.random.split(key, members)`.
        steps: meta-steps of each member.
        tasks_per_step, tasks_at_once: as in `fit`.
        swept: arrays [members], passed to `make` one number each.

    Returns: the states with a leading [members] axis on each array, and the metrics of
        every step, [members, steps] each.
    Raises: ValueError for a key of the old type, sizes below 1, or a swept array that
        has not one value a member.

    >>> import jax, optax, jaxmeta as jm
    >>> def make(inner_lr, meta_lr):
    ...     mlp = jm.models.mlp()
    ...     return jm.maml(mlp, inner_lr=inner_lr, loss=jm.losses.mse), optax.adam(meta_lr)
    >>> states, metrics = jm.fit_population(
    ...     make, jm.tasks.sinusoid(), keys=jax.random.split(jax.random.key(0), 3),
    ...     steps=5, inner_lr=[0.1, 0.01, 0.001], meta_lr=[1e-3] * 3)
    >>> states.params["head"]["bias"].shape, metrics["loss"].shape
    ((3, 1), (3, 5))
    """
    checks.check_functions(make=make)
    checks.check_sampler(sampler)
    shape = getattr(keys, "shape", ())
    if len(shape) != 1 or not len(keys):
        raise ValueError(
            f"keys: expected an array of keys [members], got {checks.said(keys)}; make "
            "them with jax.random.split(key, members)"
        )
    checks.check_key(jax.eval_shape(lambda keys: keys[0], keys), "keys")
    checks.check_sizes(steps=steps, tasks_per_step=tasks_per_step)
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)
    arrays = {n: jnp.asarray(checks.to_array(n, values)) for n, values in swept.items()}
    for name, values in arrays.items():
        if values.shape[:1] != keys.shape:
            raise ValueError(
                f"{name}: expected one value for each of the {len(keys)} keys, got "
                f"shape {values.shape}"
            )
        checks.check_finite(values, name)
    _check_members(make, arrays)
    sampler = as_pytree(sampler)
    checks.check_task(first_task(sampler, streams.data(jax.random.clone(keys)[0]), 0))
    found = _run(sampler, keys, arrays, make, steps, tasks_per_step, tasks_at_once)
    warn_of_skipped(found[1]["skipped"], steps)
    return _settled(found[0], sampler, make, arrays), found[1]


def _settled(states: MetaState, sampler, make, arrays) -> MetaState:
    """As `fit` leaves its states: what is known of the training set is set."""
    member = lambda i: make(**{name: a[i] for name, a in arrays.items()})[0]
    if member(0).settle is None:
        return states
    each = [
        member(i).settle(jax.tree.map(lambda a, i=i: a[i], states.params), sampler)
        for i in range(len(states.step))
    ]
    together = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    return states._replace(params=together)


def _check_members(make, arrays: dict[str, jax.Array]) -> None:
    """Raise ValueError for numbers that a learner refuses: swept ones are traced later.

    Limits are intervals, so the members with the least and the greatest will do.
    """
    first = {n: np.asarray(a).reshape(len(a), -1)[:, 0] for n, a in arrays.items()}
    ends = {int(f(a)) for a in first.values() for f in (np.argmin, np.argmax)}
    for i in sorted({0, *ends}):
        made = make(**{name: a[i] for name, a in arrays.items()})
        if not isinstance(made, tuple) or len(made) != 2:
            raise ValueError(
                f"make: expected to get (learner, optimizer), got {checks.said(made)}"
            )


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _run(sampler, keys, swept, make, steps, tasks_per_step, tasks_at_once):
    def member(key, values):
        learner, optimizer = make(**values)
        key_data = streams.data(key)
        step = sampled_step(
            learner, optimizer, sampler, key_data, tasks_per_step, tasks_at_once
        )
        state = init_state(learner, optimizer, streams.init(key))
        return jax.lax.scan(lambda s, _: step(s), state, length=steps)

    return jax.vmap(member)(keys, swept)
