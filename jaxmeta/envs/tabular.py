"""Random Markov decision processes of few states, in tables.

Duan et al. RL^2. 2016, arXiv 1611.02779, section 3.2: transitions from a flat Dirichlet
distribution, mean rewards from N(1, 1), rewards N(mean, 1); each episode starts in state 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_sizes
from jaxmeta.envs.env import Discrete, Env


class MDP(NamedTuple):
    """A task: chances of the next state, [states, actions, states], rows of which sum to
    1, and the mean reward, [states, actions]."""

    transitions: jax.Array
    rewards: jax.Array


def tabular(states: int = 10, actions: int = 5, horizon: int = 10) -> Env:
    """Tasks `MDP(transitions, rewards)`; the observation is the state, one-hot.

    Args: states, actions: how many. horizon: steps of an episode.
    Returns: an `Env`. Raises: ValueError for a number below 1.

    >>> mdp = tabular(states=3, actions=2).sample(jax.random.key(0))
    >>> mdp.transitions.shape, mdp.rewards.shape
    ((3, 2, 3), (3, 2))
    """
    check_sizes(states=states, actions=actions, horizon=horizon)
    seen = lambda state: jax.nn.one_hot(state, states)

    def sample(key):
        key_transitions, key_rewards = jax.random.split(key)
        shape = (states, actions)
        # exponentials divided by their sum are Dirichlet(1, ..., 1)
        weights = jax.random.exponential(key_transitions, (*shape, states))
        transitions = weights / jnp.sum(weights, axis=-1, keepdims=True)
        return MDP(transitions, 1 + jax.random.normal(key_rewards, shape))

    def reset(task, key):
        del task, key
        state = jnp.zeros((), jnp.int32)
        return state, seen(state)

    def step(task, state, action, key):
        key_state, key_reward = jax.random.split(key)
        reward = task.rewards[state, action] + jax.random.normal(key_reward)
        chances = jnp.log(task.transitions[state, action])
        after = jax.random.categorical(key_state, chances).astype(jnp.int32)
        return after, seen(after), reward, jnp.zeros((), bool)

    return Env(sample, reset, step, Discrete(actions), horizon, states)
