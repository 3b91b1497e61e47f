"""The outer loop: meta-loss over a batch of tasks, its gradient, the meta-step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys
from jaxmeta.boundary import are_values, remembered
from jaxmeta.task_axis import (
    all_true,
    are_finite,
    as_auto,
    gradient_over_tasks,
    keys_of,
    number_of,
    over_tasks,
)
from jaxmeta.types import MetaLearner, Metrics, ObjectiveFn, Outer, Task

PyTree = Any


class MetaState(NamedTuple):
    """What the next meta-step needs."""

    params: PyTree  # meta-parameters
    opt_state: PyTree  # the outer optimiser's
    step: jax.Array  # [] int32, meta-steps done


def objective_of(learner: MetaLearner) -> ObjectiveFn:
    """What training descends: (params, task, key, step) -> (value [], metrics)."""
    if learner.objective is not None:
        return learner.objective
    return lambda params, task, key, step: learner.loss(params, task, key)


def meta_loss(learner: MetaLearner) -> Callable:
    """The mean loss over a batch of tasks, all at once (vmap).

    Returns: (params, tasks, key=None, step=None) -> (loss [], metrics), metrics averaged
        too; with a step, what training descends then (`objective`, if there is one). The
        metric `diverged` is the share of tasks whose loss is not finite. Task i gets the
        key fold_in(key, i).
    """

    def mean_loss(params, tasks: Task, key=None, step=None):
        params, tasks = as_auto((params, tasks))
        checks.check_tasks(tasks)
        of_tasks = _mean(learner, step)
        return of_tasks(params, tasks, keys_of(key, number_of(tasks)))

    return mean_loss


def meta_gradient(learner: MetaLearner, tasks_at_once: int | None = None) -> Callable:
    """Value and gradient of what training descends, tasks as a whole or in chunks.

    Args:
        learner: whose `objective` (or else `loss`) to differentiate.
        tasks_at_once: tasks in one vmap; the chunks follow each other in a scan that
            accumulates gradients. 1 = one task after the other, None = the default of
            the backend (`jaxmeta.defaults`). All give the same numbers.

    Returns: (params, tasks, key=None, step=0) -> ((value [], metrics), gradient like
        params); step [] meta-steps done. A chunk of tasks with a value or gradient that is
        not finite is left out of the means, unless all are; the metric `diverged` is the
        share of tasks left out, or whose loss is not finite.
    Raises: ValueError if tasks_at_once does not divide the number of tasks.
    """
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)

    def gradient(params, tasks: Task, key=None, step=0):
        params, tasks = as_auto((params, tasks))
        checks.check_tasks(tasks)
        of_tasks = gradient_over_tasks(_mean(learner, step), tasks_at_once)
        own = keys_of(key, number_of(tasks))
        (value, metrics), grads, left_out = of_tasks(params, tasks, own)
        diverged = jnp.fmax(metrics["diverged"], left_out)
        return (value, metrics | {"diverged": diverged}), grads

    return gradient


def _mean(learner: MetaLearner, step) -> Callable:
    """(params, tasks, keys) -> (mean [], means): of `loss`, or with a step of what
    training descends."""
    checks.check_learner(learner)
    one = learner.loss
    if step is not None:
        objective = objective_of(learner)
        one = lambda params, task, key: objective(params, task, key, step)

    def mean(params, tasks, keys):
        value, metrics = over_tasks(lambda *task: one(params, *task))(tasks, keys)
        metrics = metrics | {"diverged": (~jnp.isfinite(value)).astype(value.dtype)}
        return jnp.mean(value), jax.tree.map(jnp.mean, metrics)

    return mean


def init_state(
    learner: MetaLearner, optimizer: optax.GradientTransformation, key: jax.Array
) -> MetaState:
    """The state before the first meta-step. Raises: ValueError for a key of the old type."""
    checks.check_key(key)
    checks.check_learner(learner)
    checks.check_optimizer(optimizer)
    return state_of(learner.init(key), optimizer)


def state_of(params: PyTree, optimizer: optax.GradientTransformation) -> MetaState:
    """The state before the first meta-step, of meta-parameters that are there."""
    # what the optimiser keeps of the parameters is a copy: `make_step` donates both
    opt_state = jax.tree.map(jnp.copy, optimizer.init(params))
    return MetaState(params, opt_state, jnp.zeros((), jnp.int32))


def make_step(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    tasks_at_once: int | None = None,
    gradient: Callable[..., Any] | None = None,
) -> Callable:
    """One meta-step: meta-gradient over a batch of tasks, then the outer optimiser.

    Args:
        learner, optimizer: what is trained, and the outer optimiser.
        tasks_at_once: as in `meta_gradient`.
        gradient: an estimator in place of `meta_gradient(learner)`, a function of the same
            form, e.g. `jm.es_gradient(learner)`; then without tasks_at_once.

    Returns: (state, tasks, key) -> (state, metrics), jitted. The state that goes in is
        donated: use the one that comes out. The metrics are means over the tasks; the
        metric `skipped` is 1 where the gradient or what the optimiser made of it was not
        finite: then nothing is applied, and only the count of steps goes on. An optimiser
        that wants the loss (`optax.contrib.reduce_on_plateau`, `optax.polyak_sgd`, line
        searches) gets `value`, `grad` and `value_fn`.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> optimizer = optax.adam(1e-3)
    >>> state = jm.init_state(learner, optimizer, jax.random.key(0))
    >>> step = jm.make_step(learner, optimizer)
    >>> tasks = jm.sample_tasks(jm.tasks.sinusoid(), jax.random.key(1), 4)
    >>> state, metrics = step(state, tasks, jax.random.key(2))
    >>> sorted(metrics), int(state.step)
    (['diverged', 'loss', 'skipped'], 1)
    """
    checks.check_learner(learner)
    checks.check_optimizer(optimizer)
    if gradient is not None:
        checks.check_functions(gradient=gradient)
    if gradient is not None and tasks_at_once is not None:
        raise ValueError(
            "tasks_at_once: an estimator given as `gradient` runs the tasks as it likes; "
            "leave one of the two out"
        )
    loss = meta_loss(learner) if gradient is None else gradient
    value_of = lambda *args: jax.tree.leaves(loss(*args)[0])[0]
    gradient = gradient or meta_gradient(learner, tasks_at_once)

    def step(state: MetaState, tasks: Task, key=None) -> tuple[MetaState, Metrics]:
        checks.check_kind(state, MetaState, "state")
        (value, metrics), grads = gradient(state.params, tasks, key, state.step)
        value_fn = lambda params: value_of(params, tasks, key, state.step)
        now, skipped = descended(optimizer, state, grads, value, value_fn)
        return now, metrics | skipped

    compiled = jax.jit(step, donate_argnums=0)

    @functools.wraps(compiled)
    def on_mesh(state: MetaState, tasks: Task, key: jax.Array | None = None):
        return compiled(*as_auto((state, tasks)), key)

    for name in ("_cache_size", "lower"):
        setattr(on_mesh, name, getattr(compiled, name))
    return on_mesh


def descended(
    optimizer: optax.GradientTransformation,
    state: MetaState,
    grads: PyTree,
    value: jax.Array,
    value_fn: Callable | None = None,
) -> tuple[MetaState, Metrics]:
    """The state after a step of the optimiser, if all that it makes is finite.

    Args: optimizer; state; grads: like its params; value []: of what is descended;
        value_fn: params -> value, for line searches.
    Returns: the state, and {"skipped": 1 if nothing but the count of steps changed}.
    """
    update = optax.with_extra_args_support(optimizer).update
    more = {"value": value, "grad": grads, "value_fn": value_fn}
    updates, opt_state = update(grads, state.opt_state, state.params, **more)
    params = optax.apply_updates(state.params, updates)
    fine = _sound(grads, params, opt_state, state.opt_state)
    new = MetaState(params, opt_state, state.step + 1)
    kept = state._replace(step=new.step)
    now = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, kept)
    return now, {"skipped": 1 - fine.astype(value.dtype)}


@remembered
def make_outer(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
    gradient: Callable[..., Any] | None = None,
) -> Outer:
    """A learner and an optimiser as the training procedure that `fit` runs.

    Args:
        learner, optimizer, tasks_at_once, gradient: as in `make_step`.
        tasks_per_step: tasks whose meta-gradients are averaged in one step.

    Returns: an `Outer` whose states are `MetaState`s.
    """
    checks.check_sizes(tasks_per_step=tasks_per_step)
    meta_step = make_step(
        learner, optimizer, tasks_at_once=tasks_at_once, gradient=gradient
    )

    def step(state, sampler, key):
        key_tasks, key_loss = keys.parts(key)
        return meta_step(
            state, sample_tasks(sampler, key_tasks, tasks_per_step), key_loss
        )

    def settle(state, sampler):
        assert learner.settle is not None
        return state._replace(params=learner.settle(state.params, sampler))

    init = functools.partial(init_state, learner, optimizer)
    return Outer(init, step, learner, learner.settle and settle)


def sample_tasks(sampler, key: jax.Array, num_tasks: int) -> Task:
    """A batch of tasks; task i is `sampler.sample(fold_in(key, i))`.

    Returns: a `Task` whose arrays have a leading [num_tasks] axis.
    Raises: ValueError for num_tasks below 1, or a key of the old type.
    """
    checks.check_key(key)
    checks.check_sampler(sampler)
    checks.check_sizes(num_tasks=num_tasks)
    task_keys = keys.tasks(key, num_tasks)
    whole = getattr(sampler, "draw", None)  # of records, which are read together
    if whole is not None:
        return whole(task_keys)
    run = _drawn if are_values((sampler, task_keys)) else _drawn.__wrapped__
    return run(sampler, task_keys)


@jax.jit
def _drawn(sampler, task_keys: jax.Array) -> Task:
    return over_tasks(sampler.sample)(task_keys)


def _sound(grads, params, opt_state, before) -> jax.Array:
    """[] whether gradient and parameters are finite, and no finite number of the
    optimiser's state became infinite or NaN."""
    pairs = zip(are_finite(opt_state), are_finite(before), strict=True)
    return all_true([*are_finite((grads, params)), *(a | ~b for a, b in pairs)])
