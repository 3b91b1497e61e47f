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
from jaxmeta.outer import make_outer, objective_of
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.tasks.streamed import Given, Streamed, chunks, tasks_of
from jaxmeta.training.evaluate import evaluate
from jaxmeta.training.log import Logs
from jaxmeta.types import MetaLearner, Outer, Sampler


def fit(
    learner: MetaLearner | Outer,
    sampler: Sampler | None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    steps: int,
    key: jax.Array,
    tasks_per_step: int | None = None,
    tasks_at_once: int | None = None,
    gradient: Callable | None = None,
    chunk: int = 100,
    state: Any = None,
    validation: Sampler | None = None,
    validation_learner: MetaLearner | None = None,
    validate_every: int = 1000,
    validation_tasks: int = 100,
    log: Logs | None = None,
    save: Callable[[Any], None] | None = None,
    save_every: int = 1000,
) -> Any:
    """Meta-train: sample tasks, take meta-steps, in one compiled program a chunk.

    The tasks of step s come from fold_in(key, s), so a run that is interrupted and
    goes on from a saved `state` is bit for bit the uninterrupted one.

    Args:
        learner, sampler, optimizer: what to train, on what, with which outer optimiser;
            or an `Outer` in place of learner and optimiser (`make_outer`, `ema`,
            `population`, `pes_outer`, one of your own); sampler: None if it draws none.
        steps: meta-steps in all, those done by `state` included.
        key: typed key; everything random in the run is derived from it. Of a population,
            keys [members].
        tasks_per_step: tasks whose meta-gradients are averaged in one step, 4 by default.
        tasks_at_once, gradient: as in `make_step`.
        chunk: steps between two looks at the metrics, all on the device.
        state: where to go on from; None = the beginning. It is copied, not consumed.
        validation: sampler of validation tasks; validation_learner: what adapts to
            them, if not `learner` (other ways, more inner steps); validate_every,
            validation_tasks: how often (in steps, rounded up to chunks), on how many.
        log: where metrics go, a `Log` or another with its two methods; None = nowhere.
        save: called with the state every `save_every` steps (rounded up to chunks), and
            at the end.

    Returns: the state after `steps` meta-steps, a `MetaState` of a learner. A meta-step
        whose gradient is not finite is not applied; a RuntimeWarning counts them (metric
        `skipped`).
    Raises: ValueError for a key of the old type, sizes below 1, or a first task with
        wrong shapes, labels out of range, or NaN.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> state = jm.fit(learner, jm.tasks.sinusoid(), optax.adam(1e-3), steps=20,
    ...                key=jax.random.key(0), chunk=10)
    >>> int(state.step)
    20
    """
    checks.check_sizes(steps=steps, chunk=chunk)
    checks.check_sizes(validate_every=validate_every, save_every=save_every)
    checks.check_sizes(2, validation_tasks=validation_tasks)
    outer = _outer(
        learner,
        optimizer,
        tasks_per_step=tasks_per_step,
        tasks_at_once=tasks_at_once,
        gradient=gradient,
    )
    _check_run(outer, sampler, key, validation, validation_learner, log, save)
    if sampler is not None and not isinstance(sampler, Streamed):
        sampler = as_pytree(sampler)
    key_data = keys.data(key)
    start = outer.init(keys.init(key)) if state is None else state
    checks.check_state(start)
    now = jax.tree.map(jnp.copy, start)
    if outer.learner is not None and sampler is not None:
        _look(outer.learner, now, sampler, key_data)
    done, parts = int(now.step), None
    if isinstance(sampler, Streamed) and done < steps:
        tasks = tasks_of(outer.step, now, key_data)
        chunk, parts = chunks(sampler, key_data, done, steps, tasks, chunk)
    while done < steps:
        clock = time.perf_counter()
        size = min(chunk, steps - done)
        given = sampler if parts is None else next(parts)
        now, history = _run_chunk(
            now, given, key_data, size, step=outer.step, chunk=chunk
        )
        history = {name: np.asarray(v)[:size] for name, v in history.items()}
        done += size
        if log is not None:
            log.chunk(done, history, time.perf_counter() - clock)
        warn_of_skipped(history.get("skipped", np.zeros(size)), done)
        validate = _due(done, size, validate_every, steps)
        keep = _due(done, size, save_every, steps)
        if outer.settle is not None and (validate or keep):  # both are due at the end
            now = outer.settle(now, sampler)
        judge = validation_learner or outer.learner
        if validation is not None and judge is not None and validate:
            report = evaluate(
                judge,
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


def _outer(learner, optimizer, **how) -> Outer:
    """What to run. Raises: ValueError for a learner without optimiser, and the reverse."""
    how = {name: value for name, value in how.items() if value is not None}
    if not isinstance(learner, Outer):
        checks.check_learner(learner)
        checks.check_optimizer(optimizer)
        return make_outer(learner, optimizer, **how)
    if optimizer is not None:
        how["optimizer"] = optimizer
    if how:
        raise ValueError(
            f"{next(iter(how))}: a jm.Outer has its own; give it where the Outer is made"
        )
    checks.check_functions(init=learner.init, step=learner.step)
    return learner


def _check_run(
    outer: Outer, sampler, key, validation, validation_learner, log, save
) -> None:
    """Raise ValueError unless everything is of its kind."""
    if outer.members is None:
        checks.check_key(key)
    else:
        checks.check_keys(key, outer.members)
    if sampler is not None or outer.learner is not None:
        checks.check_sampler(sampler)
    if validation_learner is not None:
        checks.check_learner(validation_learner, "validation_learner")
    if validation is not None:
        checks.check_sampler(validation, "validation")
        if outer.members is not None or not (validation_learner or outer.learner):
            raise ValueError(
                "validation: this jm.Outer has no learner of its own to validate; give "
                "validation_learner, or evaluate each member of a population"
            )
    if save is not None:
        checks.check_functions(save=save)
    if log is not None:
        checks.check_methods("log", log, ("chunk", "validation"), "a jm.Log")


def _look(learner: MetaLearner, state, sampler, key_data: jax.Array) -> None:
    """Raise ValueError for a first task that can't be learnt from.

    Traced with a concrete task, the learner looks at its labels.
    """
    draw = _first_task if isinstance(sampler, Streamed) else first_task
    first = draw(sampler, key_data, state.step)
    checks.check_task(first)
    one = partial(objective_of(learner), step=state.step)
    jax.eval_shape(lambda params: one(params, first, key=key_data), state.params)


def _first_task(sampler: Any, key_data: jax.Array, step: jax.Array):
    """The first task of a meta-step."""
    key_tasks, _ = keys.parts(keys.step(key_data, step))
    return sampler.sample(keys.tasks(key_tasks, 1)[0])


first_task = jax.jit(_first_task)  # compiled once for a sampler of these shapes


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


@partial(jax.jit, donate_argnums=0, static_argnames=("step", "chunk"))
def _run_chunk(
    state: Any,
    sampler: Any,
    key_data: jax.Array,
    size: int,  # a traced number, so that a shorter last chunk is the same program
    *,
    step: Callable,
    chunk: int,
):
    """`size` <= `chunk` meta-steps; metrics [chunk], of which the first `size` count."""

    def one(state, i):
        given = sampler.at(i) if isinstance(sampler, Given) else sampler
        return step(state, given, keys.step(key_data, state.step))

    def body(i, carry):
        state, history = carry
        state, metrics = one(state, i)
        return state, jax.tree.map(lambda h, m: h.at[i].set(m), history, metrics)

    metrics = jax.eval_shape(one, state, 0)[1]
    history = jax.tree.map(lambda m: jnp.zeros((chunk, *m.shape), m.dtype), metrics)
    return jax.lax.fori_loop(0, size, body, (state, history))
