"""Meta-training: thousands of meta-steps that never leave the device."""

import contextlib
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import checks, keys, meshes
from jaxmeta.boundary import looked
from jaxmeta.outer import make_outer, objective_of
from jaxmeta.tasks.plain import as_pytree, one_task
from jaxmeta.tasks.streamed import Given, Streamed, chunks, tasks_of
from jaxmeta.training.best import Best
from jaxmeta.training.evaluate import evaluate
from jaxmeta.training.log import Log, Logs
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
    gradient: Callable[..., Any] | None = None,
    mesh: Any = None,
    reduce: meshes.Reduce | None = None,
    chunk: int = 100,
    state: Any = None,
    validation: Sampler | None = None,
    validation_learner: MetaLearner | None = None,
    validate_every: int = 1000,
    validation_tasks: int = 100,
    best: Best | None = None,
    log: Logs | None = None,
    save: Callable[[Any], None] | None = None,
    save_every: int = 1000,
    save_seconds: float | None = None,
    stop: Callable[[], bool] | None = None,
    skipped_at_most: int | None = None,
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
        tasks_at_once, gradient, mesh, reduce: as in `make_step`. On a mesh each device
            draws and learns from its own tasks of a step, the same tasks on any number of
            devices; call it so in each process of several.
        chunk: steps between two looks at the metrics, all on the device.
        state: where to go on from; None = the beginning. It is copied, not consumed.
        validation: sampler of validation tasks; validation_learner: what adapts to
            them, if not `learner` (other ways, more inner steps); validate_every,
            validation_tasks: how often (in steps, rounded up to chunks), on how many.
        best: told of each validation; keeps the best state, and may end the training.
        log: where metrics go, a `Log` or another with its two methods; None = a progress
            bar, if a terminal or a notebook shows it.
        save: called with the state every `save_every` steps and `save_seconds` (rounded up
            to chunks), before a validation, and at the end.
        stop: asked after each chunk; once it says True, the state is saved and returned.
        skipped_at_most: meta-steps that may be left out; None = any number.

    Returns: the state after `steps` meta-steps, a `MetaState` of a learner. A meta-step
        whose gradient is not finite is not applied; a RuntimeWarning counts them (metric
        `skipped`).
    Raises: ValueError for a key of the old type, sizes below 1, or a first task with
        wrong shapes, labels out of range, or NaN; `jm.DivergenceError` for more steps left
        out than `skipped_at_most`: it names the last, and what was saved is finite.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> state = jm.fit(learner, jm.tasks.sinusoid(), optax.adam(1e-3), steps=20,
    ...                key=jax.random.key(0), chunk=10)
    >>> int(state.step)
    20
    """
    checks.check_sizes(steps=steps, chunk=chunk)
    checks.check_sizes(validate_every=validate_every)
    checks.check_sizes(2, validation_tasks=validation_tasks)
    skipped = Skipped(skipped_at_most)
    saving = Saving(save, save_every, save_seconds)
    outer = _outer(
        learner,
        optimizer,
        tasks_per_step=tasks_per_step,
        tasks_at_once=tasks_at_once,
        gradient=gradient,
        mesh=mesh,
        reduce=reduce,
    )
    _check_run(outer, sampler, key, validation, validation_learner, log)
    _check_ends(best, stop, validation)
    if sampler is not None and not isinstance(sampler, Streamed):
        sampler = as_pytree(sampler)
    key_data = keys.data(key)
    start = outer.init(keys.init(key)) if state is None else state
    checks.check_state(start)
    start = _strong(start)
    if outer.mesh is None:
        meshes.check_alone("state, sampler", start, sampler)
    else:
        where = meshes.SHARED if outer.members is None else meshes.OF_MEMBERS
        start, key_data = meshes.replicated((start, key_data), outer.mesh, where)
        if not isinstance(sampler, Streamed):
            sampler = meshes.replicated(sampler, outer.mesh)
    now = meshes.copied(start)
    if outer.learner is not None and sampler is not None:
        _look(outer.learner, now, sampler, key_data)
    judge = None if validation is None else validation_learner or outer.learner
    own = {"num_tasks": validation_tasks, "key": keys.validation(key)}
    test = partial(evaluate, **own, mesh=outer.mesh)
    done, parts = int(now.step), None
    if isinstance(sampler, Streamed) and done < steps:
        tasks = tasks_of(outer.step, now, key_data)
        mesh = None if outer.members is not None else outer.mesh
        chunk, parts = chunks(sampler, key_data, done, steps, tasks, chunk, mesh)
    run = partial(_run_chunk, step=outer.step, chunk=chunk)
    ready, ended = False, False
    with _seen(log, steps, done) as told:
        while done < steps and not ended:
            size = min(chunk, steps - done)
            given = sampler if parts is None else next(parts)
            if not ready:  # no step at all: only compiled
                now, _ = run(now, given, key_data, 0)
                ready = True
            clock = time.perf_counter()
            now, history = run(now, given, key_data, size)
            history = {name: np.asarray(v)[:size] for name, v in history.items()}
            done += size
            told.chunk(done, history, time.perf_counter() - clock)
            skipped.count(history.get("skipped", np.zeros(size)), done)
            ended = stop is not None and stop()
            validate = not ended and due(done, size, validate_every, steps)
            keep = ended or validate or saving.is_due(done, size, steps)
            if outer.settle is not None and keep:
                now = outer.settle(now, sampler)
            if keep:
                saving(now)
            if judge is not None and validate:
                assert validation is not None
                report = test(judge, now.params, validation)
                ended = best is not None and best.look(now, report)
                told.validation(done, report)
    return now


def _strong(state: Any) -> Any:
    """The state with arrays that insist on their type, as they are after a step: of others
    the program of a chunk would be compiled twice."""
    weak = lambda a: getattr(a, "weak_type", False)
    return jax.tree.map(lambda a: jnp.asarray(a, a.dtype) if weak(a) else a, state)


class Saving:
    """When a state is saved: each so many steps, and seconds; as given to `fit`."""

    def __init__(self, save: Callable[[Any], None] | None, every: int, seconds):
        checks.check_sizes(save_every=every)
        if seconds is not None:
            checks.check_numbers(least=0, save_seconds=seconds)
        if save is not None:
            checks.check_functions(save=save)
        self._save, self._every, self._seconds = save, every, seconds
        self._last = time.monotonic()

    def is_due(self, done: int, size: int, steps: int) -> bool:
        """After a chunk of `size` steps that ended at step `done`."""
        waited = time.monotonic() - self._last
        late = self._seconds is not None and waited > self._seconds
        return late or due(done, size, self._every, steps)

    def __call__(self, state: Any) -> None:
        """Save it, if anything is to be saved."""
        if self._save is not None:
            self._save(state)
            self._last = time.monotonic()


def _seen(log: Logs | None, steps: int, done: int) -> Any:
    """The log as a context: a given one is its owner's to open and close."""
    if log is not None or done >= steps:
        return contextlib.nullcontext(log)
    return Log(None, steps, done)


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


def _check_run(outer: Outer, sampler, key, validation, validation_learner, log) -> None:
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
    if log is not None:
        checks.check_methods("log", log, ("chunk", "validation"), "a jm.Log")


def _check_ends(best, stop, validation) -> None:
    """Raise ValueError unless what may end a training is of its kind."""
    if stop is not None:
        checks.check_functions(stop=stop)
    if best is not None:
        checks.check_kind(best, Best, "best")
        if validation is None:
            raise ValueError(
                "best: nothing is validated; give a validation sampler too"
            )


def _look(learner: MetaLearner, state, sampler, key_data: jax.Array) -> None:
    """Raise ValueError for a first task that can't be learnt from."""
    first = first_task(sampler, key_data, state.step)
    checks.check_task(first)
    if not looked(learner, state.params, first, training=True):
        one = partial(objective_of(learner), key=key_data, step=state.step)
        jax.eval_shape(lambda params: one(params, first), state.params)


def first_task(sampler: Any, key_data: jax.Array, step: jax.Array | int):
    """The first task of a meta-step, by the program of the sampler."""
    key_tasks, _ = keys.parts(keys.step(key_data, step))
    own = keys.fold(key_tasks, 0)
    if isinstance(sampler, Streamed):
        return sampler.sample(own)
    return one_task(sampler, own)


class DivergenceError(FloatingPointError):
    """More meta-steps than were allowed had a gradient that is not finite.

    step: the last of them, counted from 0: its tasks are those of fold_in(key, step).
    """

    def __init__(self, step: int, number: int):
        super().__init__(
            f"{number} meta-steps had a gradient that is not finite, the last was step "
            f"{step}; none of them was applied. Lower the outer or inner step size, or "
            "look for bad values in the tasks of that step"
        )
        self.step = step


class Skipped:
    """Counts the meta-steps that were not applied, and ends a training with too many."""

    def __init__(self, at_most: int | None = None):
        if at_most is not None:
            checks.check_sizes(0, skipped_at_most=at_most)
        self._at_most, self._number = at_most, 0

    def count(self, skipped: np.ndarray, done: int) -> None:
        """skipped: [steps of a chunk, ...], which ended at step `done`.

        Raises: DivergenceError for more than are allowed.
        """
        number = int(np.sum(skipped))
        if not number:
            return
        self._number += number
        each = np.asarray(skipped).reshape(len(skipped), -1).any(1)
        if self._at_most is not None and self._number > self._at_most:
            last = int(np.flatnonzero(each)[-1])
            raise DivergenceError(done - len(skipped) + last, self._number)
        warnings.warn(
            f"{number} of the {np.size(skipped)} meta-steps up to step {done} had a "
            "gradient that is not finite and were not applied; lower the outer or inner "
            "step size, or look for bad values in the data (metrics: diverged, skipped)",
            RuntimeWarning,
            stacklevel=3,
        )


def due(done: int, size: int, every: int, steps: int) -> bool:
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
        put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return state, jax.tree.map(put, history, metrics)

    metrics = jax.eval_shape(one, state, 0)[1]
    history = jax.tree.map(lambda m: jnp.zeros((chunk, *m.shape), m.dtype), metrics)
    return jax.lax.fori_loop(0, size, body, (state, history))
