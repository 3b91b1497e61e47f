"""Averages of what is trained, which is what is then tested: of its last steps (EMA), of
equally many steps apart (SWA); and the average as a teacher.

Tarvainen, Valpola. Mean teachers are better role models. NeurIPS 2017, arXiv 1703.01780.
Izmailov et al. Averaging Weights Leads to Wider Optima and Better Generalization. UAI 2018,
arXiv 1803.05407. Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network.
2015, arXiv 1503.02531.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys, losses, meshes
from jaxmeta.boundary import remembered
from jaxmeta.outer import (
    MetaState,
    descended,
    init_state,
    meta_gradient,
    objective_of,
    sample_tasks,
)
from jaxmeta.types import MetaLearner, Outer, PyTree


class Averaged(NamedTuple):
    """A state, and the running mean of its parameters, which is what is tested."""

    params: PyTree
    state: Any

    @property
    def step(self) -> jax.Array:
        """Meta-steps done."""
        return self.state.step


@remembered
def ema(outer: Outer, decay: float = 0.999) -> Outer:
    """Train as `outer` does, and test the exponential moving average of its parameters.

        average <- decay average + (1 - decay) params        after each meta-step

    Args: outer: see `make_outer`; decay: in [0, 1).
    Returns: an `Outer` whose states are `Averaged`. Raises: ValueError for another decay.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> averaged = jm.ema(jm.make_outer(learner, optax.adam(1e-3)), decay=0.9)
    >>> state = jm.fit(averaged, jm.tasks.sinusoid(), steps=20, key=jax.random.key(0))
    >>> state.params["head"]["bias"].shape  # averages, which `evaluate` takes as well
    (1,)
    """
    checks.check_kind(outer, Outer, "outer")
    checks.check_numbers(least=0, below=1, decay=decay)

    def init(key):
        state = outer.init(key)
        return Averaged(meshes.copied(state.params), state)

    def step(averaged, sampler, key):
        state, metrics = outer.step(averaged.state, sampler, key)
        params = optax.incremental_update(state.params, averaged.params, 1 - decay)
        return Averaged(params, state), metrics

    settle = outer.settle and _settled(outer)
    return outer._replace(init=init, step=step, settle=settle)


def _settled(outer: Outer):
    """What `outer` settles, of the average."""

    def settle(averaged, sampler):
        assert outer.settle is not None
        there = averaged.state._replace(params=averaged.params)
        return averaged._replace(params=outer.settle(there, sampler).params)

    return settle


class Means(NamedTuple):
    """A state, the mean of its parameters so far, and of how many steps it is."""

    params: PyTree
    state: Any
    number: jax.Array  # [] int32

    @property
    def step(self) -> jax.Array:
        """Meta-steps done."""
        return self.state.step


@remembered
def swa(outer: Outer, start: int, every: int = 1) -> Outer:
    """Train as `outer` does, and test the mean of its parameters after meta-steps `start`,
    `start + every`, ... (stochastic weight averaging); before, the parameters themselves.

    Args: outer: see `make_outer`, with a rate that stays large; start, every: meta-steps.
    Returns: an `Outer` whose states are `Means`. Raises: ValueError for sizes below 1.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> outer = jm.swa(jm.make_outer(learner, optax.adam(1e-3)), start=10, every=5)
    >>> state = jm.fit(outer, jm.tasks.sinusoid(), steps=20, key=jax.random.key(0))
    >>> int(state.number)  # after steps 10, 15 and 20
    3
    """
    checks.check_kind(outer, Outer, "outer")
    checks.check_sizes(start=start, every=every)

    def init(key):
        state = outer.init(key)
        params = meshes.copied(state.params)
        return Means(params, state, jnp.zeros((), jnp.int32))

    def step(means, sampler, key):
        state, metrics = outer.step(means.state, sampler, key)
        number = means.number + ((state.step - start) % every == 0)
        number = jnp.where(state.step < start, 0, number).astype(jnp.int32)
        # 1 / number of the way when one more counts; all of it before the first does
        moves = (number > means.number) | (number == 0)
        part = lambda dtype: jnp.where(
            moves, 1 / jnp.maximum(number, 1).astype(dtype), 0
        )
        move = lambda mean, p: mean + part(mean.dtype) * (p - mean)
        return Means(
            jax.tree.map(move, means.params, state.params), state, number
        ), metrics

    settle = outer.settle and _settled(outer)
    return outer._replace(init=init, step=step, settle=settle)


def taught(
    learner: MetaLearner,
    teacher: MetaLearner,
    params: PyTree,
    *,
    weight: float = 0.5,
    temperature: float = 1.0,
) -> MetaLearner:
    """A learner that also learns to predict what a teacher does, on the queries of its
    training tasks.

        objective = (1 - weight) own + weight T^2 KL(softmax(teacher / T) || softmax(own / T))

    and for regression the mean squared difference in place of T^2 KL.

    Args:
        learner: who learns. teacher, params: who has learned, and adapts to the same
            support set; its parameters are constants.
        weight: of the teacher, in [0, 1]. temperature: T > 0.

    Returns: the learner with another objective; it is tested as before.
    Raises: ValueError for numbers out of range.
    Source: Hinton et al. 2015, section 2.

    >>> import jax, jaxmeta as jm
    >>> learner = jm.protonet(jm.models.mlp(2, 4, (8,)), ways=3)
    >>> teacher = learner.init(jax.random.key(0))  # as if it had been trained
    >>> student = jm.taught(learner, learner, teacher, weight=0.3, temperature=2.0)
    """
    checks.check_learner(learner)
    checks.check_learner(teacher, "teacher")
    checks.check_numbers(least=0, most=1, weight=weight)
    checks.check_positive(temperature=temperature)
    own = objective_of(learner)

    def objective(given, task, key, step):
        value, metrics = own(given, task, key, step)
        again = None if key is None else keys.purpose(key, "taught")
        said = [
            m.predict(m.adapt(p, task.support, again), task.query.x, task.query.mask)
            for m, p in ((learner, given), (teacher, jax.lax.stop_gradient(params)))
        ]
        apart = _apart(said[0], said[1], task.query, temperature)
        both = (1 - weight) * value + weight * apart
        return both, metrics | {"taught": apart}

    return learner._replace(objective=objective)


@remembered
def mean_teacher(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    decay: float = 0.999,
    weight: float = 0.5,
    temperature: float = 1.0,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
) -> Outer:
    """Train a learner that is also taught by the moving average of its parameters, which is
    what is tested (self-distillation).

    Args:
        learner, optimizer, tasks_per_step, tasks_at_once: as in `make_outer`.
        decay: of the average, in [0, 1). weight, temperature: as in `taught`.

    Returns: an `Outer` whose states are `Averaged`.
    Raises: ValueError for numbers out of range.
    Source: Tarvainen and Valpola 2017, section 2.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> outer = jm.mean_teacher(learner, optax.adam(1e-3), decay=0.9)
    >>> state = jm.fit(outer, jm.tasks.sinusoid(), steps=10, key=jax.random.key(0))
    """
    checks.check_numbers(least=0, below=1, decay=decay)
    checks.check_sizes(tasks_per_step=tasks_per_step)
    taught(learner, learner, (), weight=weight, temperature=temperature)  # is in range

    def init(key):
        state = init_state(learner, optimizer, key)
        return Averaged(meshes.copied(state.params), state)

    def step(averaged, sampler, key):
        key_tasks, key_loss = keys.parts(key)
        tasks = sample_tasks(sampler, key_tasks, tasks_per_step)
        student = taught(
            learner, learner, averaged.params, weight=weight, temperature=temperature
        )
        state: MetaState = averaged.state
        gradient = meta_gradient(student, tasks_at_once)
        (value, metrics), grads = gradient(state.params, tasks, key_loss, state.step)
        state, skipped = descended(optimizer, state, grads, value)
        params = optax.incremental_update(state.params, averaged.params, 1 - decay)
        return Averaged(params, state), metrics | skipped

    def settle(averaged, sampler):
        assert learner.settle is not None
        return averaged._replace(params=learner.settle(averaged.params, sampler))

    return Outer(init, step, learner, learner.settle and settle)


def _apart(own, teacher, query, temperature: float) -> jax.Array:
    """[] how far two predictions are apart, on the queries that count."""
    if losses.are_labels(query.y):
        log_p, log_q = (
            jax.nn.log_softmax(logits / temperature) for logits in (teacher, own)
        )
        each = temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    else:
        first = lambda outputs: outputs[0] if isinstance(outputs, tuple) else outputs
        each = losses.mse(first(own), first(teacher))
        each = jnp.mean(jnp.reshape(each, (len(each), -1)), axis=1)
    return losses.mean(each, query.mask)
