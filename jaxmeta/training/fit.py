"""Meta-training: thousands of meta-steps that never leave the device."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import checks
from jaxmeta.outer import MetaState, init_state, make_step, sample_tasks
from jaxmeta.training.evaluate import evaluate
from jaxmeta.training.log import Log
from jaxmeta.types import MetaLearner, Sampler

DATA_KEY, INIT_KEY, VALIDATION_KEY = 0, 1, 2  # what is folded into the run's key


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

    Returns: the state after `steps` meta-steps.
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
    sizes = {"steps": steps, "tasks_per_step": tasks_per_step, "chunk": chunk}
    sizes |= {"validate_every": validate_every, "save_every": save_every}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    key_data = jax.random.fold_in(key, DATA_KEY)
    key_validation = jax.random.fold_in(key, VALIDATION_KEY)
    first = sample_one(sampler, key_data)
    checks.check_task(first)

    key_init = jax.random.fold_in(key, INIT_KEY)
    start = state or init_state(learner, optimizer, key_init)
    now: MetaState = jax.tree.map(jnp.copy, start)
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
        if validation is not None and _due(done, size, validate_every, steps):
            report = evaluate(
                validation_learner or learner,
                now.params,
                validation,
                num_tasks=validation_tasks,
                key=key_validation,
            )
            if log is not None:
                log.validation(done, report)
        if save is not None and _due(done, size, save_every, steps):
            save(now)
    return now


@jax.jit
def sample_one(sampler: Any, key: jax.Array):
    """One task, compiled once for a sampler of these shapes."""
    return sampler.sample(key)


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
        key_tasks, key_loss = jax.random.split(jax.random.fold_in(key_data, state.step))
        tasks = sample_tasks(sampler, key_tasks, tasks_per_step)
        return meta_step(state, tasks, key_loss)

    return one
