"""Meta-training: thousands of meta-steps that never leave the device."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import checks, keys
from jaxmeta.outer import MetaState, init_state, make_step, sample_tasks
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.training.evaluate import evaluate
from jaxmeta.training.log import Log
from jaxmeta.types import MetaLearner, Sampler


def fit(
    learner: MetaLearner,
    sampler: Sampler,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    key: jax.Array,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
    gradient: Callable | None = None,
    chunk: int = 100,
    state: MetaState | None = None,
    validation: Sampler | None = None,
    validation_learner: MetaLearner | None = None,
    validate_every: int = 1000,
    validation_tasks: int = 100,
    log: Log | None = None,
    save: Callable[[MetaState], None] | None = None,
    save_every: int = 1000,
) -> MetaState:
    """Meta-train: sample tasks, take meta-steps, in one compiled program a chunk.

    The tasks of step s come from fold_in(key, s), so a run that is interrupted and
    goes on from a saved `state` is bit for bit the uninterrupted one.

    Args:
        learner, sampler, optimizer: what to train, on what, with which outer optimiser.
        steps: meta-steps in all, those done by `state` included.
        key: typed key; everything random in the run is derived from it.
        tasks_per_step: tasks whose meta-gradients are averaged in one step.
        tasks_at_once, gradient: as in `make_step`.
        chunk: steps between two looks at the metrics, all on the device.
        state: where to go on from; None = `init_state`. It is copied, not consumed.
        validation: sampler of validation tasks; validation_learner: what adapts to
            them, if not `learner` (other ways, more inner steps); validate_every,
            validation_tasks: how often (in steps, rounded up to chunks), on how many.
        log: where metrics go, see `Log`; None = nowhere.
        save: called with the state every `save_every` steps (rounded up to chunks), and
            at the end.

    Returns: the state after `steps` meta-steps. A meta-step whose gradient is not finite
        is not applied; a RuntimeWarning counts them (metric `skipped`).
    Raises: ValueError for a key of the old type, sizes below 1, or a first task with
        wrong shapes, labels out of range, or NaN.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> state = jm.fit(learner, jm.tasks.sinusoid(), optax.adam(1e-3), steps=20,
    ...                key=jax.random.key(0), chunk=10)
    >>> int(state.step)
    20
    """
    checks.check_key(key)
    checks.check_learner(learner)
    checks.check_sampler(sampler)
    checks.check_optimizer(optimizer)
    checks.check_sizes(steps=steps, tasks_per_step=tasks_per_step, chunk=chunk)
    checks.check_sizes(validate_every=validate_every, save_every=save_every)
    checks.check_sizes(2, validation_tasks=validation_tasks)
    _check_parts(tasks_at_once, gradient, state, validation, validation_learner, save)
    if log is not None:
        checks.check_methods("log", log, ("chunk", "validation"), "a jm.Log")
    sampler = as_pytree(sampler)
    key_data = keys.data(key)
    start = state or init_state(learner, optimizer, keys.init(key))
    now: MetaState = jax.tree.map(jnp.copy, start)
    first = first_task(sampler, key_data, now.step)
    checks.check_task(first)
    # traced with a concrete task, the learner looks at its labels
    one = learner.loss
    if learner.scheduled_loss is not None:
        one = partial(learner.scheduled_loss, step=now.step)
    jax.eval_shape(lambda params: one(params, first, key=key), now.params)
    done = int(now.step)
    while done < steps:
        clock = time.perf_counter()
        size = min(chunk, steps - done)
        now, history = _run_chunk(
            now,
            sampler,
            key_data,
            size,
            learner=learner,
            optimizer=optimizer,
            tasks_per_step=tasks_per_step,
            tasks_at_once=tasks_at_once,
            gradient=gradient,
            chunk=chunk,
        )
        history = {name: np.asarray(v)[:size] for name, v in history.items()}
        done += size
        if log is not None:
            log.chunk(done, history, time.perf_counter() - clock)
        warn_of_skipped(history["skipped"], done)
        validate = _due(done, size, validate_every, steps)
        keep = _due(done, size, save_every, steps)
        if learner.settle is not None and (validate or keep):  # both are due at the end
            now = now._replace(params=learner.settle(now.params, sampler))
        if validation is not None and validate:
            report = evaluate(
                validation_learner or learner,
                now.params,
                validation,
                num_tasks=validation_tasks,
                key=keys.validation(key),
            )
            if log is not None:
                log.validation(done, report)
        if save is not None and keep:
            save(now)
    return now


def _check_parts(
    tasks_at_once, gradient, state, validation, validation_learner, save
) -> None:
    """Raise ValueError unless what may be None is of its kind."""
    if tasks_at_once is not None:
        checks.check_sizes(tasks_at_once=tasks_at_once)
    if validation is not None:
        checks.check_sampler(validation, "validation")
    if validation_learner is not None:
        checks.check_learner(validation_learner, "validation_learner")
    for name, function in {"gradient": gradient, "save": save}.items():
        if function is not None:
            checks.check_functions(**{name: function})
    if state is not None:
        checks.check_kind(state, MetaState, "state")


@jax.jit
def first_task(sampler: Any, key_data: jax.Array, step: jax.Array):
    """The first task of a meta-step, compiled once for a sampler of these shapes."""
    key_tasks, _ = keys.step(key_data, step)
    return sampler.sample(keys.tasks(key_tasks, 1)[0])


def warn_of_skipped(skipped, done: int) -> None:
    """Say how many of the meta-steps up to step `done` were not applied, if any."""
    number = int(np.sum(skipped))
    if number:
        warnings.warn(
            f"{number} of the {np.size(skipped)} meta-steps up to step {done} had a "
            "gradient that is not finite and were not applied; lower the outer or inner "
            "step size, or look for bad values in the data (metrics: diverged, skipped)",
            RuntimeWarning,
            stacklevel=3,
        )


def _due(done: int, size: int, every: int, steps: int) -> bool:
    """Whether the chunk that just ended crossed a multiple of `every`, or is the last."""
    return done == steps or done // every > (done - size) // every


@partial(
    jax.jit,
    donate_argnums=0,
    static_argnames=(
        "learner",
        "optimizer",
        "tasks_per_step",
        "tasks_at_once",
        "gradient",
        "chunk",
    ),
)
def _run_chunk(
    state: MetaState,
    sampler: Any,
    key_data: jax.Array,
    size: int,  # a traced number, so that a shorter last chunk is the same program
    *,
    learner,
    optimizer,
    tasks_per_step,
    tasks_at_once,
    gradient,
    chunk,
):
    """`size` <= `chunk` meta-steps; metrics [chunk], of which the first `size` count."""
    one = sampled_step(
        learner, optimizer, sampler, key_data, tasks_per_step, tasks_at_once, gradient
    )

    def body(i, carry):
        state, history = carry
        state, metrics = one(state)
        return state, jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)

    metrics = jax.eval_shape(one, state)[1]
    history = jax.tree.map(lambda m: jnp.zeros((chunk, *m.shape), m.dtype), metrics)
    return jax.lax.fori_loop(0, size, body, (state, history))


def sampled_step(
    learner,
    optimizer,
    sampler,
    key_data,
    tasks_per_step,
    tasks_at_once,
    gradient=None,
) -> Callable[[MetaState], tuple[MetaState, Any]]:
    """state -> (state, metrics): a meta-step on tasks drawn from (key_data, step)."""
    meta_step = make_step(
        learner, optimizer, tasks_at_once=tasks_at_once, gradient=gradient
    )

    def one(state):
        key_tasks, key_loss = keys.step(key_data, state.step)
        tasks = sample_tasks(sampler, key_tasks, tasks_per_step)
        return meta_step(state, tasks, key_loss)

    return one
