"""Meta-train a population: seeds, inner rates and meta rates in one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks, meshes
from jaxmeta import keys as streams
from jaxmeta.boundary import remembered
from jaxmeta.outer import make_outer
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.training.fit import first_task, fit
from jaxmeta.types import Metrics, Outer, PyTree, Sampler


class Population(NamedTuple):
    """The states of all members, and the numbers by which they differ."""

    members: PyTree  # states, [members] on each array
    values: dict[str, jax.Array]  # [members] each

    @property
    def params(self) -> PyTree:
        """Of all members, [members] on each array."""
        return self.members.params

    @property
    def step(self) -> jax.Array:
        """Meta-steps that each has done."""
        return self.members.step[0]


def population(
    make: Callable[..., Any],
    members: int,
    *,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
    mesh: Any = None,
    **swept: Any,
) -> Outer:
    """All members of a population at once (vmap), as one training procedure.

    Member i is the run of `make(**{name: values[i]})` with the i-th key. Small networks
    leave most of a device idle, so eight members cost less than eight runs.

    Args:
        make: a member's values, by name -> (learner, optimizer), or an `Outer`. Only
            numbers may differ between members, no shapes and no counts of steps.
        members: how many.
        tasks_per_step, tasks_at_once: as in `fit`, of each.
        mesh: with an axis "members", over whose devices the members are split; None = one.
        swept: arrays [members], passed to `make` one number each.

    Returns: an `Outer` whose states are `Population`s; `fit` it with keys [members].
    Raises: ValueError for a swept array that has not one value a member, or for values
        that a learner refuses.
    """
    checks.check_functions(make=make)
    checks.check_sizes(members=members, tasks_per_step=tasks_per_step)
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)
    arrays = {n: jnp.asarray(checks.to_array(n, values)) for n, values in swept.items()}
    for name, values in arrays.items():
        if values.shape[:1] != (members,):
            raise ValueError(
                f"{name}: expected one value for each of the {members} keys, got "
                f"shape {values.shape}"
            )
        checks.check_finite(values, name)
    _check_members(make, arrays)
    if mesh is not None:
        meshes.check_mesh(mesh, meshes.MEMBERS)
        meshes.share(members, mesh, "members", meshes.MEMBERS)
    together = _together(make, tasks_per_step, tasks_at_once, mesh)
    outer = together.init(arrays)
    return Outer(outer, together.step, None, together.settle, members, mesh)


class _Together(NamedTuple):
    init: Callable  # values -> keys -> state
    step: Callable
    settle: Callable


@remembered
def _together(make, tasks_per_step, tasks_at_once, mesh=None) -> _Together:
    """The functions of a population, the same for the same `make`: compiled once."""

    def member(values) -> Outer:
        made = make(**values)
        if isinstance(made, Outer):
            return made
        how = {"tasks_per_step": tasks_per_step, "tasks_at_once": tasks_at_once}
        return make_outer(*made, **how)

    start = jax.jit(jax.vmap(lambda key, values: member(values).init(key)))

    def step(state: Population, sampler, keys):
        def some(states, values, sampler, keys):
            one = lambda own, values, key: member(values).step(own, sampler, key)
            return jax.vmap(one)(states, values, keys)

        run = some
        if mesh is not None:
            own = meshes.OF_MEMBERS
            given = own, own, meshes.SHARED, own
            run = meshes.split(some, mesh, given, own, meshes.MEMBERS)
        now, metrics = run(state.members, state.values, sampler, keys)
        return Population(now, state.values), metrics

    def settle(state: Population, sampler):
        own = lambda i: jax.tree.map(lambda a: a[i], tuple(state))
        if member(own(0)[1]).settle is None:
            return state
        settled = []
        for i in range(len(state.members.step)):
            one, values = own(i)
            known = member(values).settle
            assert known is not None
            settled.append(known(one, sampler))
        stack = lambda *parts: jnp.stack(parts)
        return Population(jax.tree.map(stack, *settled), state.values)

    def init(values):
        return lambda keys: Population(start(keys, values), values)

    return _Together(init, step, settle)


def fit_population(
    make: Callable[..., tuple[Any, Any]],
    sampler: Sampler,
    *,
    keys: jax.Array,
    steps: int,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
    mesh: Any = None,
    **swept: Any,
) -> tuple[Any, Metrics]:
    """`fit` for every member of a population at once (vmap).

    Member i is the run `fit(*make(**{name: values[i]}), ..., key=keys[i])`. Small
    networks leave most of a device idle, so eight members cost less than eight runs.

    Args:
        make: a member's values, by name -> (learner, optimizer). Only numbers may
            differ between members, no shapes and no counts of steps.
        sampler: the task distribution, the same for all.
        keys: [members] typed keys, `jax.random.split(key, members)`.
        steps: meta-steps of each member.
        tasks_per_step, tasks_at_once: as in `fit`. mesh: as in `population`.
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
    checks.check_keys(keys)
    outer = population(
        make,
        len(keys),
        tasks_per_step=tasks_per_step,
        tasks_at_once=tasks_at_once,
        mesh=mesh,
        **swept,
    )
    checks.check_sampler(sampler)
    sampler = as_pytree(sampler)
    checks.check_task(first_task(sampler, streams.data(jax.random.clone(keys)[0]), 0))
    history = _History()
    state = fit(outer, sampler, steps=steps, key=keys, log=history)
    return state.members, history.metrics()


class _History:
    """Keeps the metrics of all steps."""

    def __init__(self):
        self.chunks: list[dict[str, np.ndarray]] = []

    def chunk(self, step: int, history: dict[str, np.ndarray], seconds: float) -> None:
        del step, seconds
        self.chunks.append(history)

    def validation(self, step: int, report: Any) -> None:
        """There is none."""

    def metrics(self) -> Metrics:
        """[members, steps] each."""
        whole = lambda name: np.concatenate([chunk[name] for chunk in self.chunks])
        return {name: jnp.asarray(whole(name).T) for name in self.chunks[0]}


def _check_members(make, arrays: dict[str, jax.Array]) -> None:
    """Raise ValueError for numbers that a learner refuses: swept ones are traced later.

    Limits are intervals, so the members with the least and the greatest will do.
    """
    first = {n: np.asarray(a).reshape(len(a), -1)[:, 0] for n, a in arrays.items()}
    ends = {int(f(a)) for a in first.values() for f in (np.argmin, np.argmax)}
    for i in sorted({0, *ends}):
        made = make(**{name: a[i] for name, a in arrays.items()})
        if isinstance(made, Outer):
            continue
        if not isinstance(made, tuple) or len(made) != 2:
            raise ValueError(
                f"make: expected to get (learner, optimizer), got {checks.said(made)}"
            )
