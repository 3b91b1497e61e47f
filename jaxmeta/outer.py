"""The outer loop: meta-loss over a batch of tasks, its gradient, the meta-step."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys, meshes
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
        key fold_in(key, i), or with `first`, a fifth argument, fold_in(key, first + i).
    """

    def mean_loss(params, tasks: Task, key=None, step=None, first=0):
        params, tasks = as_auto((params, tasks))
        checks.check_tasks(tasks)
        of_tasks = _mean(learner, step)
        return of_tasks(params, tasks, keys_of(key, number_of(tasks), first))

    return mean_loss


def meta_gradient(
    learner: MetaLearner,
    tasks_at_once: int | None = None,
    *,
    mesh: Any = None,
    reduce: meshes.Reduce = "mean",
) -> Callable:
    """Value and gradient of what training descends, tasks as a whole or in chunks.

    Args:
        learner: whose `objective` (or else `loss`) to differentiate.
        tasks_at_once: tasks in one vmap; the chunks follow each other in a scan that
            accumulates gradients. 1 = one task after the other, None = the default of
            the backend (`jaxmeta.defaults`). All give the same numbers.
        mesh: a `jax.sharding.Mesh` with an axis "tasks", over whose devices the tasks are
            split, each with its own chunks; None = one device.
        reduce: how gradients of chunks are added, "mean" as is fastest; "tree" gives the
            same bits on 1, 2, 4, ... devices, if `tasks_at_once` is the same.

    Returns: (params, tasks, key=None, step=0) -> ((value [], metrics), gradient like
        params); step [] meta-steps done. A chunk of tasks with a value or gradient that is
        not finite is left out of the means, unless all are; the metric `diverged` is the
        share of tasks left out, or whose loss is not finite.
    Raises: ValueError if tasks_at_once does not divide the number of tasks of a device,
        the mesh has no axis "tasks", or a "tree" has not 2^k chunks of a given size.
    """
    local = _how(learner, tasks_at_once, None, mesh, reduce).local

    def gradient(params, tasks: Task, key=None, step=0):
        params, tasks = as_auto((params, tasks))
        checks.check_tasks(tasks)
        if reduce == "tree":
            _check_tree(number_of(tasks), tasks_at_once, mesh)
        return _of_batch(local, mesh)(params, tasks, key, step)

    return gradient


def _own_gradient(learner: MetaLearner, tasks_at_once: int | None, reduce) -> Callable:
    """(params, tasks, key, step, first, mesh, draw) -> value, metrics and gradient; with a
    mesh as one device of it runs it, whose first task has the place `first`. With `draw`,
    tasks are what it makes tasks of, chunk by chunk."""

    def local(params, tasks, key, step, first=0, mesh=None, draw=None):
        mean = _mean(learner, step)
        of = mean if draw is None else lambda p, t, own: mean(p, draw(t), own)
        of_tasks = gradient_over_tasks(of, tasks_at_once, reduce, mesh, step)
        own = keys_of(key, number_of(tasks), first)
        (value, metrics), grads, left_out = of_tasks(params, tasks, own)
        diverged = jnp.fmax(metrics["diverged"], left_out)
        return (value, metrics | {"diverged": diverged}), grads

    return local


def _estimated(gradient: Callable) -> Callable:
    """A user's gradient in the form of `_own_gradient`."""
    of_all = "mesh" in inspect.signature(gradient).parameters

    def local(params, tasks, key, step, first=0, mesh=None, draw=None):
        del draw  # of a tree alone, which it is not
        if mesh is None:
            return gradient(params, tasks, key, step)
        if of_all:
            return gradient(params, tasks, key, step, first, mesh)
        found = gradient(params, tasks, key, step, first)
        size = meshes.size_of(mesh)
        total = meshes.summed(found, mesh, "mean")
        return jax.tree.map(lambda a: a / size, total)

    return local


def _valued(value: Callable) -> Callable:
    """The value alone, in the form of `_own_gradient`; it has a derivative."""

    def local(params, tasks, key, step, first=0, mesh=None, draw=None):
        del draw
        if mesh is None:
            return value(params, tasks, key, step)
        own = value(params, tasks, key, step, first)
        return jax.lax.psum(own, meshes.TASKS) / meshes.size_of(mesh)

    return local


def _of_batch(local: Callable, mesh) -> Callable:
    """(params, tasks, key, step) -> value, metrics and gradient, on the devices of a mesh."""
    if mesh is None:
        return local

    def gradient(params, tasks, key, step):
        own = meshes.share(number_of(tasks), mesh, "tasks")
        params, key, step = meshes.replicated((params, key, step), mesh)
        tasks = meshes.replicated(tasks, mesh, meshes.SPLIT)

        def part(params, tasks, key, step):
            return local(params, tasks, key, step, meshes.first_of(own), mesh)

        given = meshes.SHARED, meshes.SPLIT, meshes.SHARED, meshes.SHARED
        return meshes.split(part, mesh, given, meshes.SHARED)(params, tasks, key, step)

    return gradient


def _of_sampler(local: Callable, mesh, number: int, chunkwise: bool) -> Callable:
    """The same of (params, sampler, key of the tasks, key of the loss, step): each device
    draws its own tasks, all at once or chunk by chunk, whose last digits hang on it."""
    own = meshes.share(number, mesh, "tasks_per_step")

    def gradient(params, sampler, key_tasks, key_loss, step):
        read = getattr(sampler, "parts", None)  # records, read for all devices

        def part(params, sampler, key_tasks, key_loss, step):
            first = 0 if mesh is None else meshes.first_of(own)
            tasks, draw = keys.tasks(key_tasks, own, first), None
            if read is None and chunkwise:
                draw = jax.vmap(sampler.sample)
            else:
                tasks = tasks_of(sampler, tasks)
            return local(params, tasks, key_loss, step, first, mesh, draw)

        if mesh is None:
            return part(params, sampler, key_tasks, key_loss, step)
        where = meshes.SHARED if read is None else read(number)
        given = meshes.SHARED, where, meshes.SHARED, meshes.SHARED, meshes.SHARED
        run = meshes.split(part, mesh, given, meshes.SHARED)
        return run(params, sampler, key_tasks, key_loss, step)

    return gradient


def _check_tree(number: int, tasks_at_once: int | None, mesh) -> None:
    """Raise ValueError unless tasks make 2^k chunks of one size on any 2^j devices."""
    chunks = number // (tasks_at_once or number)
    if tasks_at_once is None or chunks & (chunks - 1) or number % tasks_at_once:
        raise ValueError(
            f'reduce="tree": expected tasks_at_once= that makes 1, 2, 4, ... chunks of '
            f"{number} tasks, got {tasks_at_once}"
        )
    size = meshes.size_of(mesh)
    if size & (size - 1) or chunks < size:
        raise ValueError(
            f'reduce="tree": expected 1, 2, 4, ... devices, at most one a chunk of which '
            f"there are {chunks}, got {size}"
        )


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
    opt_state = meshes.copied(optimizer.init(params))
    return MetaState(params, opt_state, jnp.zeros((), jnp.int32))


def make_step(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    tasks_at_once: int | None = None,
    gradient: Callable[..., Any] | None = None,
    mesh: Any = None,
    reduce: meshes.Reduce = "mean",
) -> Callable:
    """One meta-step: meta-gradient over a batch of tasks, then the outer optimiser.

    Args:
        learner, optimizer: what is trained, and the outer optimiser.
        tasks_at_once, mesh, reduce: as in `meta_gradient`.
        gradient: an estimator in place of `meta_gradient(learner)`, a function of the same
            form, e.g. `jm.es_gradient(learner)`; then without tasks_at_once. On a mesh it
            has a fifth argument, `first`, the place of its first task, and what it gives is
            averaged over devices; one with a sixth, `mesh`, gives the same on all of them.

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
    how = _how(learner, tasks_at_once, gradient, mesh, reduce)
    of_tasks = _of_batch(how.local, mesh)

    def step(state: MetaState, tasks: Task, key=None) -> tuple[MetaState, Metrics]:
        checks.check_kind(state, MetaState, "state")
        checks.check_tasks(tasks)
        if reduce == "tree":
            _check_tree(number_of(tasks), tasks_at_once, mesh)
        found = of_tasks(state.params, tasks, key, state.step)
        value_fn = lambda params: how.value(params, tasks, key, state.step)
        return _taken(optimizer, state, found, value_fn)

    compiled = jax.jit(step, donate_argnums=0)

    @functools.wraps(compiled)
    def placed(state: MetaState, tasks: Task, key: jax.Array | None = None):
        state, tasks = as_auto((state, tasks))
        if mesh is not None:
            meshes.share(number_of(tasks), mesh, "tasks")
            state, key = meshes.replicated((state, key), mesh)
            tasks = meshes.replicated(tasks, mesh, meshes.SPLIT)
        return compiled(state, tasks, key)

    for name in ("_cache_size", "lower"):
        setattr(placed, name, getattr(compiled, name))
    return placed


class _How(NamedTuple):
    """How a gradient is computed, and the value alone."""

    local: Callable  # see `_own_gradient`
    value: Callable  # (params, tasks, key, step) -> []


def _how(learner, tasks_at_once, gradient, mesh, reduce) -> _How:
    """Raises: ValueError for arguments that contradict each other."""
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)
    if mesh is not None:
        meshes.check_mesh(mesh)
    checks.check_choice("reduce", reduce, ("mean", "tree"))
    if gradient is None:
        local = _own_gradient(learner, tasks_at_once, reduce)
        loss = meta_loss(learner)
    else:
        checks.check_functions(gradient=gradient)
        if reduce == "tree":
            raise ValueError(
                'reduce="tree": an estimator given as `gradient` adds up as it likes; leave '
                "one of the two out"
            )
        if tasks_at_once is not None:
            raise ValueError(
                "tasks_at_once: an estimator given as `gradient` runs the tasks as it "
                "likes; leave one of the two out"
            )
        if mesh is not None and "first" not in inspect.signature(gradient).parameters:
            raise ValueError(
                "gradient: on a mesh an estimator needs a fifth argument `first`, the place "
                "of its first task, whose key is fold_in(key, first); without it all "
                "devices would draw the same noise"
            )
        local, loss = _estimated(gradient), gradient
    return _How(local, lambda *args: jax.tree.leaves(loss(*args)[0])[0])


def _taken(optimizer, state: MetaState, found, value_fn) -> tuple[MetaState, Metrics]:
    """A step of the optimiser along what was found."""
    (value, metrics), grads = found
    now, skipped = descended(optimizer, state, grads, value, value_fn)
    return now, metrics | skipped


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
    now = jax.tree.map(lambda a, b: jax.lax.select_n(fine, b, a), new, kept)
    return now, {"skipped": 1 - fine.astype(value.dtype)}


@remembered
def make_outer(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
    gradient: Callable[..., Any] | None = None,
    mesh: Any = None,
    reduce: meshes.Reduce = "mean",
) -> Outer:
    """A learner and an optimiser as the training procedure that `fit` runs.

    Args:
        learner, optimizer, tasks_at_once, gradient, mesh, reduce: as in `make_step`; on a
            mesh each device also draws its own tasks.
        tasks_per_step: tasks whose meta-gradients are averaged in one step.

    Returns: an `Outer` whose states are `MetaState`s.
    """
    checks.check_sizes(tasks_per_step=tasks_per_step)
    meta_step = make_step(
        learner,
        optimizer,
        tasks_at_once=tasks_at_once,
        gradient=gradient,
        reduce=reduce,
    )
    how = _how(learner, tasks_at_once, gradient, mesh, reduce)
    if reduce == "tree":
        _check_tree(tasks_per_step, tasks_at_once, mesh)

    def step(state, sampler, key):
        key_tasks, key_loss = keys.parts(key)
        tasks = sample_tasks(sampler, key_tasks, tasks_per_step)
        return meta_step(state, tasks, key_loss)

    def step_of_chunks(state, sampler, key):
        run = _of_sampler(how.local, mesh, tasks_per_step, reduce == "tree")
        given = sampler, *keys.parts(key), state.step
        found = run(state.params, *given)
        judge = _of_sampler(_valued(how.value), mesh, tasks_per_step, False)
        value_fn = lambda params: judge(params, *given)
        return _taken(optimizer, state, found, value_fn)

    def settle(state, sampler):
        assert learner.settle is not None
        return state._replace(params=learner.settle(state.params, sampler))

    init = functools.partial(init_state, learner, optimizer)
    if mesh is not None:
        meshes.share(tasks_per_step, mesh, "tasks_per_step")
    if mesh is not None or reduce == "tree":
        step = step_of_chunks
    return Outer(init, step, learner, learner.settle and settle, mesh=mesh)


def sample_tasks(sampler, key: jax.Array, num_tasks: int) -> Task:
    """A batch of tasks; task i is `sampler.sample(fold_in(key, i))`.

    Returns: a `Task` whose arrays have a leading [num_tasks] axis.
    Raises: ValueError for num_tasks below 1, or a key of the old type.
    """
    checks.check_key(key)
    checks.check_sampler(sampler)
    checks.check_sizes(num_tasks=num_tasks)
    return tasks_of(sampler, keys.tasks(key, num_tasks))


def tasks_of(sampler, task_keys: jax.Array) -> Task:
    """The tasks [n, ...] of keys [n]."""
    whole = getattr(sampler, "draw", None)  # of records, which are read together
    if whole is not None:
        return whole(task_keys)
    run = _drawn_at_once if are_values((sampler, task_keys)) else _drawn
    return run(sampler, task_keys)


def _drawn(sampler, task_keys: jax.Array) -> Task:
    return over_tasks(sampler.sample)(task_keys)


_drawn_at_once = jax.jit(_drawn)  # one program, where it is called with values


def _sound(grads, params, opt_state, before) -> jax.Array:
    """[] whether gradient and parameters are finite, and no finite number of the
    optimiser's state became infinite or NaN."""
    pairs = zip(are_finite(opt_state), are_finite(before), strict=True)
    kept = (now >= then for now, then in pairs)
    return all_true([*are_finite((grads, params)), *kept])
