"""Planning in tabular MDPs that are known, and in ones drawn from what is known of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks


def value_iteration(
    transitions: jax.Array, rewards: jax.Array, horizon: int
) -> tuple[jax.Array, jax.Array]:
    """The optimum of a known MDP over a finite number of steps, not discounted.

        V_t(s) = max_a r(s, a) + sum_s' P(s' | s, a) V_{t+1}(s'),  V_horizon = 0

    Args: transitions [S, A, S], chances that sum to 1 over the last axis; rewards [S, A],
        means; horizon: steps.

    Returns: values [horizon + 1, S], of the steps from t on; greedy actions [horizon, S],
        int32.
    Raises: ValueError for shapes that don't fit, or a horizon below 1.

    >>> stay, swap = jnp.eye(2), jnp.eye(2)[::-1]
    >>> rewards = jnp.array([[0.0, 0.0], [1.0, 0.0]])  # only staying in state 1 pays
    >>> transitions = jnp.stack([stay, swap], axis=1)
    >>> values, actions = value_iteration(transitions, rewards, horizon=3)
    >>> values[0].tolist(), actions[0].tolist()  # from state 0: swap first
    ([2.0, 3.0], [1, 0])
    """
    checks.check_sizes(horizon=horizon)
    _check_mdp(transitions, rewards)

    def back(following, _):
        q = rewards + jnp.einsum("san,n->sa", transitions, following)
        value = jnp.max(q, axis=1)
        return value, (value, jnp.argmax(q, axis=1).astype(jnp.int32))

    end = jnp.zeros(len(rewards), jnp.result_type(transitions, rewards))
    _, (values, actions) = jax.lax.scan(back, end, length=horizon)
    return jnp.concatenate([values[::-1], end[None]]), actions[::-1]


class History(NamedTuple):
    """What has happened, [episodes, horizon].

    visit: int32, of each step the position in a flat [S, A, S] array; S A S where there
        was none yet, which scattering drops. reward: observed.
    """

    visit: jax.Array
    reward: jax.Array


def psrl(
    transitions: jax.Array,
    rewards: jax.Array,
    key: jax.Array,
    *,
    episodes: int = 10,
    horizon: int = 10,
    prior_mean: float = 1.0,
) -> jax.Array:
    """Posterior sampling: each episode follows the optimum of an MDP drawn for it.

    Its prior is that of the tasks in Duan et al. 2016 (RL^2, arXiv 1611.02779, section
    3.2): flat Dirichlet transitions, mean rewards N(1, 1), observed with noise N(0, 1).
    Pure in its key, for one MDP; `jax.vmap` it over many.

    Args: transitions [S, A, S] and mean rewards [S, A] of the true MDP; key; episodes, each
        of `horizon` steps from state 0; prior_mean: of mean rewards. 0, the default of
        its authors' code, explores less than the true 1 and gets more from 10 episodes of
        10 steps: 138, as published there, against 134.

    Returns: observed reward of each episode, [episodes].
    Raises: ValueError for shapes that don't fit, sizes below 1, a prior_mean not finite.

    Source: Strens 2000; Osband, Russo, Van Roy. (More) Efficient Reinforcement Learning
    via Posterior Sampling. NeurIPS 2013, arXiv 1306.0940.

    >>> transitions, rewards = jnp.full((4, 3, 4), 0.25), jnp.ones((4, 3))
    >>> psrl(transitions, rewards, jax.random.key(0), episodes=5).shape
    (5,)
    """
    checks.check_sizes(episodes=episodes, horizon=horizon)
    checks.check_numbers(prior_mean=prior_mean)
    checks.check_key(key)
    _check_mdp(transitions, rewards)

    # numbers are scanned over, not keys, which JAX's check for reuse refuses under vmap
    def one_episode(history, episode):
        key_model, key_steps = jax.random.split(jax.random.fold_in(key, episode))
        model = _draw(history, transitions.shape, prior_mean, key_model)
        _, plan = value_iteration(*model, horizon)

        def step(state, row):
            now, number = row
            key_now = jax.random.fold_in(key_steps, number)
            return _step(transitions, rewards, state, now, key_now)

        rows = plan, jnp.arange(horizon)
        _, new = jax.lax.scan(step, jnp.zeros((), jnp.int32), rows)
        history = jax.tree.map(lambda a, b: a.at[episode].set(b), history, new)
        return history, jnp.sum(new.reward)

    none = jnp.full((episodes, horizon), transitions.size, jnp.int32)
    history = History(none, jnp.zeros((episodes, horizon), rewards.dtype))
    return jax.lax.scan(one_episode, history, jnp.arange(episodes))[1]


def _draw(history: History, shape, prior_mean, key) -> tuple[jax.Array, jax.Array]:
    """Transitions [S, A, S] and mean rewards [S, A] from the posterior.

    A Gamma variable of whole shape 1 + n is a sum of 1 + n exponential ones: one of each
    cell and one of each visit, which is far cheaper than drawing from a Dirichlet.
    """
    states, actions, _ = shape
    key_cells, key_visits, key_rewards = jax.random.split(key, 3)
    cells = jax.random.exponential(key_cells, (states * actions * states,))
    visits = jax.random.exponential(key_visits, history.visit.shape)
    weights = cells.at[history.visit].add(visits, mode="drop").reshape(shape)
    pair = history.visit // states
    precision = jnp.ones(states * actions).at[pair].add(1, mode="drop")
    total = jnp.full(states * actions, prior_mean).at[pair]
    mean = total.add(history.reward, mode="drop") / precision
    means = mean + jax.random.normal(key_rewards, mean.shape) / jnp.sqrt(precision)
    transitions = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return transitions, means.reshape(states, actions)


def _step(transitions, rewards, state, plan, key):
    """One step of the true MDP under a plan [S]."""
    key_state, key_reward = jax.random.split(key)
    action = plan[state]
    chances = jnp.log(transitions[state, action])
    after = jax.random.categorical(key_state, chances).astype(jnp.int32)
    noise = jax.random.normal(key_reward, (), rewards.dtype)
    visit = jnp.ravel_multi_index(
        (state, action, after), transitions.shape, mode="clip"
    )
    reward = rewards[state, action] + noise
    return after, History(visit.astype(jnp.int32), reward)


def _check_mdp(transitions: jax.Array, rewards: jax.Array) -> None:
    """Raise ValueError unless the two are of the same states and actions."""
    shape = jnp.shape(rewards)
    if len(shape) != 2 or jnp.shape(transitions) != (*shape, shape[0]):
        raise ValueError(
            "transitions, rewards: expected shapes [states, actions, states] and "
            f"[states, actions], got {jnp.shape(transitions)} and {shape}; one MDP at a "
            "time: use jax.vmap for a batch of them"
        )
