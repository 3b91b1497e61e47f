"""Episodes in environments that live on the host: in lockstep, one object a task.

Slow beside `jaxmeta.rollouts`, where a whole trial is one compiled program: here each step
is one call of a compiled program, in which the agent acts in all tasks at once, and one
call of Python for each task. Of 100 pendulums on two cores that is 16,000 steps a second;
compiled, a point robot takes 700,000.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks, keys
from jaxmeta.boundary import with_types
from jaxmeta.envs import gymnasium_adapter as host
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Box, Discrete, Env, check_action, is_action, no_action
from jaxmeta.rollouts import Last, Rollouts


def collect(
    agent: Agent,
    params: Any,
    envs: Sequence[Any],
    *,
    key: jax.Array,
    episodes: int = 1,
    horizon: int | None = None,
    support: tuple[Rollouts, ...] = (),
) -> Rollouts:
    """Let an agent act in environments of Gymnasium, a task each.

    An agent's memory is kept from each episode to the next. An environment is reset only
    where an episode begins, with a seed from `key`: what it draws in `reset` is drawn anew
    then, so what makes the task belongs where the environment is made.

    Args:
        agent, params: who acts.
        envs: environments with the same spaces, an object for each task, and one task for
            all episodes. Box actions are clipped to their limits.
        key: typed key; task i has the keys that `jaxmeta.rollouts.trial` makes of
            fold_in(key, i).
        episodes: of each task. horizon: as in `jm.envs.from_gymnasium`.
        support: batches that were collected in the same tasks before, of which the agent
            learns first, each [tasks, episodes, horizon, ...].

    Returns: `Rollouts`, arrays [tasks, episodes, horizon, ...], actions as the agent chose
        them. `terminated` is Gymnasium's; where it truncates, too, the mask is 0 from the
        next step on. `jaxmeta.rollouts.returns` sums rewards to [tasks, episodes].
    Raises: ValueError for environments that differ or are one object, for a reward or an
        observation that is not finite or changes its shape, and for an action that is none
        of the environment's, such as a policy of NaN has.
    """
    checks.check_kind(agent, Agent, "agent")
    checks.check_key(key)
    checks.check_sizes(episodes=episodes)
    for batch in support:
        checks.check_kind(batch, Rollouts, "support")
    env = _common(envs, horizon)
    n, alone = len(envs), agent.begin is None
    adapted, memory = _begun(agent, params, support, n)
    first = last = _each(n, Last(no_action(env.actions), jnp.zeros(()), jnp.ones(())))
    task_keys, played = keys.tasks(key, n), []
    for number in range(episodes):
        seeds, key_steps = _dealt(task_keys, number, alone)
        act = partial(_acted, agent, env.actions, bool(support), adapted, key_steps)
        last = first if alone else last
        memory, last, rows = _episode(
            act, memory, last, envs, env, np.asarray(seeds), number
        )
        played.append(rows)
    return jax.tree.map(lambda *a: jnp.asarray(np.stack(a, axis=1)), *played)


def _common(envs, horizon) -> Env:
    """What the agent has to know of all of them."""
    if not isinstance(envs, (list, tuple)) or not envs:
        raise ValueError(
            "envs: expected a list of environments of Gymnasium, one a task, got "
            f"{checks.said(envs)}"
        )
    known = [host.from_gymnasium(env, horizon=horizon) for env in envs]
    for i, other in enumerate(known):
        # as tuples Discrete(2) == Box(2)
        if with_types(other) != with_types(known[0]):
            raise ValueError(
                "envs: expected the same actions, horizon and observations in all, got "
                f"{known[0][3:]} in envs[0] and {other[3:]} in envs[{i}]"
            )
    if len({id(getattr(env, "unwrapped", env)) for env in envs}) < len(envs):
        raise ValueError(
            f"envs: expected {len(envs)} objects, got the same one twice; they take their "
            "steps in turn, so make one for each task"
        )
    return known[0]


@partial(jax.jit, static_argnames=("agent", "tasks"))
def _begun(agent: Agent, params, support, tasks: int) -> tuple[Any, Any]:
    """Adapted, and the memory that each task begins with, [tasks, ...]; without support all
    tasks share what is adapted, which then has no such axis."""

    def begin(support):
        adapted = agent.adapt(params, support)
        return adapted, () if agent.begin is None else agent.begin(adapted)

    if support:
        return jax.vmap(begin)(support)
    adapted, memory = begin(None)
    return adapted, _each(tasks, memory)


def _each(tasks: int, tree):
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (tasks, *jnp.shape(a))), tree)


@partial(jax.jit, static_argnames="alone")
def _dealt(task_keys, number, alone: bool):
    """Seeds and keys [tasks] of an episode, as `jaxmeta.rollouts.trial` deals them; alone:
    to an agent without memory, for whom each episode is the first."""

    def one(key):
        key = jax.random.fold_in(key, number)
        key = jax.random.fold_in(key, 0) if alone else key
        key_reset, key_steps = jax.random.split(key)
        return jax.random.bits(key_reset) >> 1, key_steps

    return jax.vmap(one)(task_keys)


@partial(jax.jit, static_argnames=("agent", "actions", "apart"))
def _acted(
    agent: Agent,
    actions: Discrete | Box,
    apart: bool,
    adapted: Any,
    key_steps: jax.Array,
    number: int,
    memory: Any,
    obs: np.ndarray,
    last: Last,
    alive: np.ndarray,
):
    """One step in all tasks: (memory, (action, log_prob, value, whether it is one)).

    apart: whether each has adapted for itself."""

    def one(adapted, key_steps, memory, obs, last, alive):
        key_act, _ = jax.random.split(jax.random.fold_in(key_steps, number))
        known, action, log_prob, value = agent.act(adapted, memory, obs, last, key_act)
        check_action(actions, action)
        keep = lambda new, old: jnp.where(alive > 0, new, old)
        known = jax.tree.map(keep, known, memory)
        sound = is_action(actions, action) | (alive == 0)
        return known, (action, log_prob, value, sound)

    axes = 0 if apart else None, 0, 0, 0, 0, 0
    return jax.vmap(one, axes)(adapted, key_steps, memory, obs, last, alive)


def _episode(act, memory, last, envs, env: Env, seeds, number: int):
    """(memory, last, Rollouts [tasks, horizon, ...]) of an episode in all tasks."""
    reset = lambda i: host.reset(
        envs[i], int(seeds[i]), env.obs_dims, _told(number, 0, i)
    )
    obs: Any = np.stack([reset(i) for i in range(len(envs))])
    rows: list[Rollouts] = []
    alive: Any = np.ones(len(envs), np.float32)
    last = last._replace(done=np.ones_like(alive))
    for t in range(env.horizon):
        memory, chosen = act(t, memory, obs, last, alive)
        action, log_prob, value, sound = jax.device_get(chosen)
        told = partial(_told, number, t)
        _check_chosen(env.actions, action, sound, told)
        seen, reward, over, cut = _stepped(envs, env, action, obs, alive, told)
        rows.append(Rollouts(obs, action, reward, over, log_prob, value, alive))
        # what came last before an episode is its last step that counts
        last = Last(
            _kept(alive, action, last.action),
            _kept(alive, reward, last.reward),
            0 * alive,
        )
        obs, alive = seen, alive * ~(over | cut)
        if not alive.any():
            break
    return memory, last, _filled(rows, env.horizon)


def _told(episode: int, t: int, i: int) -> str:
    return f"envs[{i}], episode {episode}, step {t}"


def _stepped(envs, env: Env, action, obs, alive, told) -> tuple[Any, ...]:
    """obs [tasks, n], reward, terminated, truncated [tasks]; who is at the end stays."""

    def one(i):
        if not alive[i]:
            return host.Stepped(obs[i], 0.0, False, False)
        return host.step(envs[i], action[i], env.obs_dims, told(i))

    found = zip(*map(one, range(len(envs))), strict=True)
    seen, reward, over, cut = map(np.stack, found)
    return seen, reward.astype(np.float32), over, cut


def _check_chosen(actions, action, sound, told) -> None:
    """Raise ValueError unless all actions are the environment's."""
    if sound.all():
        return
    i = int(np.argmin(sound))
    discrete = isinstance(actions, Discrete)
    wanted = f"0..{actions.n - 1}" if discrete else "finite numbers"
    raise ValueError(
        f"agent: in {told(i)} it chose the action {action[i]}, expected {wanted}; a "
        "policy that is NaN chooses -1 or NaN: look whether its parameters are finite"
    )


def _kept(alive, new, old) -> Any:
    """The new where an episode went on, else the old, [tasks, ...]."""
    went_on = np.reshape(alive > 0, (-1, *[1] * (new.ndim - 1)))
    return np.where(went_on, new, np.asarray(old))


def _filled(rows: list[Rollouts], horizon: int) -> Rollouts:
    """[tasks, horizon, ...], zeros after the end of all."""

    def one(*steps):
        found = np.stack(steps, axis=1)
        rest = horizon - found.shape[1]
        return np.pad(found, [(0, 0), (0, rest), *[(0, 0)] * (found.ndim - 2)])

    return jax.tree.map(one, *rows)
