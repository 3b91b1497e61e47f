"""How one task is learned by policy gradients: act, take a step, act again."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, keys, rollouts
from jaxmeta.adjoints import Adjoint, FirstOrder
from jaxmeta.envs.env import Env
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.actor import Actor, actor
from jaxmeta.learners.reinforcement.baselines import linear_advantages
from jaxmeta.learners.reinforcement.surrogates import Surrogate
from jaxmeta.types import Model

Move = Callable[[Any, int, Any], Any]


def mover(
    player: Actor,
    surrogate: Surrogate,
    inner_lr: float | optax.Schedule,
    adjoint: Adjoint,
) -> Move:
    """One step of adaptation: (w, number of the step, (rollouts, advantages)) -> w."""

    def objective(w, context, batch):
        played, advantages = batch
        return -surrogate(player.log_probs(w, played), played, advantages)

    descend = inner.descent("maml_rl", objective, steps=1, adjoint=adjoint)
    if callable(inner_lr):
        inner.check_schedule(inner_lr)
        rate = inner_lr
    else:
        checks.check_numbers(least=0, inner_lr=inner_lr)
        rate = lambda k: inner_lr
    return lambda w, k, batch: descend(w, (), batch, hyper=rate(k))


def practice(player: Actor, move: Move, weigh: Sequence[Callable]) -> Callable:
    """How a task is learned: by acting, again after each step.

    Args: player, move; weigh: rollouts -> advantages, of those before each step and of
        the last, so one more than there are steps.
    Returns: (params, task, key) -> ((rollouts, advantages), ...), constants, as many.
    """

    def play(params, task, key):
        w, batches = params, []
        for k, (weigh_k, key_k) in enumerate(
            zip(weigh, jax.random.split(key, len(weigh)), strict=True)
        ):
            w = move(w, k - 1, batches[-1]) if k else w
            played = player.collect(w, task, key_k)
            batches.append((played, weigh_k(played)))
        return jax.lax.stop_gradient(tuple(batches))

    return play


def returns_after_updates(
    model: Model,
    env: Env,
    params: Any,
    *,
    num_tasks: int,
    key: jax.Array,
    inner_lr: float | optax.Schedule = 0.1,
    inner_steps: int = 1,
    episodes: int = 20,
    surrogate: Surrogate = surrogates.importance,
    discount: float = 0.99,
    trace: float = 1.0,
    normalise: bool = True,
) -> jax.Array:
    """What a learned policy earns in new tasks, before each update and after the last.

    Args: params, as training left them; num_tasks, new ones, from `key`; the others as in
        training, where more steps or episodes than there may be asked for.
    Returns: mean return of an episode, [tasks, inner_steps + 1].
    """
    checks.check_sizes(num_tasks=num_tasks)
    checks.check_sizes(0, inner_steps=inner_steps)
    player = actor(model, env, episodes)
    move = mover(player, surrogate, inner_lr, FirstOrder())  # no one differentiates it
    weigh = functools.partial(
        linear_advantages, discount=discount, trace=trace, normalise=normalise
    )
    play = practice(player, move, [weigh] * (inner_steps + 1))

    @jax.jit
    @jax.vmap
    def earned(key):
        key_task, key_play = jax.random.split(key)
        batches = play(params, env.sample(key_task), key_play)
        return jnp.stack([jnp.mean(rollouts.returns(played)) for played, _ in batches])

    return earned(keys.tasks(key, num_tasks))
