"""The outer loop: meta-loss over a batch of tasks, its gradient, the meta-step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxmeta import checks, defaults, keys
from jaxmeta.batches import examples
from jaxmeta.types import MetaLearner, Metrics, Task

PyTree = Any


class MetaState(NamedTuple):
    """What the next meta-step needs."""

    params: PyTree  # meta-parameters
    opt_state: PyTree  # the outer optimiser's
    step: jax.Array  # [] int32, meta-steps done


def meta_loss(learner: MetaLearner) -> Callable:
    """The mean outer objective over a batch of tasks, all at once (vmap).

    Returns: (params, tasks, key=None, step=None) -> (loss [], metrics), metrics averaged
        too; with a step, `scheduled_loss` if the learner has one. The
        metric `diverged` is the share of tasks whose loss is not finite. Task i gets the
        key fold_in(key, i).
    """

    def mean_loss(params, tasks: Task, key=None, step=None):
        params, tasks = as_auto((params, tasks))
        return _mean_loss(learner, params, tasks, _keys(key, number_of(tasks)), step)

    return mean_loss


def meta_gradient(learner: MetaLearner, tasks_at_once: int | None = None) -> Callable:
    """Value and gradient of `meta_loss`, the task axis run as a whole or in chunks.

    Args:
        learner: whose outer objective to differentiate.
        tasks_at_once: tasks in one vmap; the chunks follow each other in a scan that
            accumulates gradients. 1 = one task after the other, None = the default of
            the backend (`jaxmeta.defaults`). All give the same numbers.

    Returns: (params, tasks, key=None, step=None) -> ((loss [], metrics), gradient like
        params). With a step, that of `scheduled_loss` if the learner has one.
    Raises: ValueError if tasks_at_once does not divide the number of tasks.
    """
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)

    def gradient(params, tasks: Task, key=None, step=None):
        params, tasks = as_auto((params, tasks))
        n = number_of(tasks)
        keys = _keys(key, n)
        size = min(tasks_at_once or defaults.tasks_at_once(n, inputs_of(tasks)), n)
        if n % size:
            raise ValueError(
                f"tasks_at_once: {n} tasks can't be run {size} at once; expected a "
                f"divisor of {n}, or a number >= {n} for all at once"
            )
        chunk_loss = jax.value_and_grad(
            lambda params, tasks, keys: _mean_loss(learner, params, tasks, keys, step),
            has_aux=True,
        )
        if size == n:
            return chunk_loss(params, tasks, keys)

        def accumulate(total, chunk):
            value, grads = chunk_loss(params, *chunk)
            return jax.tree.map(jnp.add, total, grads), value

        split = lambda a: jnp.reshape(a, (n // size, size, *a.shape[1:]))
        chunks = jax.tree.map(split, (tasks, keys))
        zeros = jax.tree.map(jnp.zeros_like, params)
        total, values = jax.lax.scan(accumulate, zeros, chunks)
        mean = lambda tree, f: jax.tree.map(f, tree)
        return mean(values, jnp.mean), mean(total, lambda g: g / (n // size))

    return gradient


def init_state(
    learner: MetaLearner, optimizer: optax.GradientTransformation, key: jax.Array
) -> MetaState:
    """The state before the first meta-step. Raises: ValueError for a key of the old type."""
    checks.check_key(key)
    checks.check_learner(learner)
    checks.check_optimizer(optimizer)
    params = learner.init(key)
    # what the optimiser keeps of the parameters is a copy: `make_step` donates both
    opt_state = jax.tree.map(jnp.copy, optimizer.init(params))
    return MetaState(params, opt_state, jnp.zeros((), jnp.int32))


def make_step(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    tasks_at_once: int | None = None,
    gradient: Callable | None = None,
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
    update = optax.with_extra_args_support(optimizer).update

    def step(state: MetaState, tasks: Task, key=None) -> tuple[MetaState, Metrics]:
        checks.check_kind(state, MetaState, "state")
        (value, metrics), grads = gradient(state.params, tasks, key, state.step)
        updates, opt_state = update(
            grads,
            state.opt_state,
            state.params,
            value=value,
            grad=grads,
            value_fn=lambda params: value_of(params, tasks, key, state.step),
        )
        params = optax.apply_updates(state.params, updates)
        fine = _sound(grads, params, opt_state, state.opt_state)
        new = MetaState(params, opt_state, state.step + 1)
        kept = state._replace(step=new.step)
        now = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, kept)
        return now, metrics | {"skipped": 1 - fine.astype(value.dtype)}

    compiled = jax.jit(step, donate_argnums=0)

    @functools.wraps(compiled)
    def on_mesh(state: MetaState, tasks: Task, key: jax.Array | None = None):
        return compiled(*as_auto((state, tasks)), key)

    for name in ("_cache_size", "lower"):
        setattr(on_mesh, name, getattr(compiled, name))
    return on_mesh


def sample_tasks(sampler, key: jax.Array, num_tasks: int) -> Task:
    """A batch of tasks; task i is `sampler.sample(fold_in(key, i))`.

    Returns: a `Task` whose arrays have a leading [num_tasks] axis.
    Raises: ValueError for num_tasks below 1, or a key of the old type.
    """
    checks.check_key(key)
    checks.check_sampler(sampler)
    checks.check_sizes(num_tasks=num_tasks)
    return jax.vmap(sampler.sample)(keys.tasks(key, num_tasks))


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
        kinds = (jax.sharding.AxisType.Auto,) * len(mesh.axis_names)
        auto = jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
        return jax.device_put(a, jax.sharding.NamedSharding(auto, a.sharding.spec))

    return jax.tree.map(move, tree)


def number_of(tasks: Task) -> int:
    """Tasks in a batch of tasks. Raises: ValueError for what is none."""
    checks.check_tasks(tasks)
    return examples(tasks.support)


def inputs_of(tasks: Task) -> int:
    """Numbers in the support and query inputs of one task of a batch."""
    inputs = jax.tree.leaves((tasks.support.x, tasks.query.x))
    return sum(a.size for a in inputs) // number_of(tasks)


def _sound(grads, params, opt_state, before) -> jax.Array:
    """[] whether gradient and parameters are finite, and no finite number of the
    optimiser's state became infinite or NaN.

    Arrays of one shape are looked at together, in one pass.
    """
    finite = lambda tree: [
        jnp.isfinite(a)
        for a in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(a), jnp.inexact)
    ]
    kept = [a | ~b for a, b in zip(finite(opt_state), finite(before), strict=True)]
    together: dict[tuple, jax.Array] = {(): jnp.array(True)}
    for a in finite((grads, params)) + kept:
        together[a.shape] = together.get(a.shape, True) & a
    return jnp.all(jnp.stack([jnp.all(a) for a in together.values()]))


def _keys(key: jax.Array | None, num_tasks: int) -> jax.Array | None:
    if key is None:
        return None
    checks.check_key(key)
    return keys.tasks(key, num_tasks)


def _mean_loss(learner, params, tasks, keys, step=None):
    checks.check_learner(learner)
    one, scheduled = learner.loss, learner.scheduled_loss
    if step is not None and scheduled is not None:
        one = lambda params, task, key: scheduled(params, task, key, step)
    if number_of(tasks) == 1:  # a task axis of size 1 makes matrix products slower
        task, key = jax.tree.map(lambda a: a[0], (tasks, keys))
        loss, metrics = jax.tree.map(lambda a: a[None], one(params, task, key))
    else:
        loss, metrics = jax.vmap(one, (None, 0, 0))(params, tasks, keys)
    metrics = metrics | {"diverged": (~jnp.isfinite(loss)).astype(loss.dtype)}
    return jnp.mean(loss), jax.tree.map(jnp.mean, metrics)
