"""A chain of 2 states and 2 actions, from state 0, for tests of surrogates."""

import jax.numpy as jnp
import numpy as np

from jaxmeta import policies
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.rollouts import Rollouts

RANDOM = np.random.default_rng(0)
CHANCE = RANDOM.dirichlet(np.ones(2), (2, 2))  # [state, action, next]
REWARD, LOGITS = RANDOM.normal(0, 1, (2, 2, 2))  # [state, action] each
ALL = {
    "score": surrogates.score,
    "lvc": surrogates.lvc,
    "dice": surrogates.dice,
    "loaded_dice": surrogates.loaded_dice,
    "importance": surrogates.importance,
    "ppo_clip": surrogates.ppo_clip,
}


def rollouts_of(state, action, reward, theta, mask=None):
    """Episodes [episodes, steps], as the policy `theta` would have recorded them."""
    log_prob = policies.log_prob(jnp.asarray(theta)[state], action)
    mask = np.ones(state.shape) if mask is None else mask
    zeros = np.zeros(state.shape)
    return Rollouts(state, action, reward, zeros > 0, log_prob, zeros, mask)


def log_probs(theta, rollouts):
    return policies.log_prob(theta[rollouts.obs], rollouts.action)
