"""Posterior sampling in the grid of `grid_optimum`: go to a goal drawn from those left."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.envs.baselines.grid_optimum import GAIN, PENALTY


class Belief(NamedTuple):
    """left: bool [cells], where the goal may still be. target: [], the cell to go to."""

    left: jax.Array
    target: jax.Array


def grid_posterior_sampling(
    key: jax.Array,
    *,
    redraw: bool = True,
    size: int = 5,
    steps: int = 15,
    episodes: int = 4,
) -> jax.Array:
    """Simulate it for one goal.

    An episode begins with a target drawn from the goals not refuted; the agent goes there
    by a shortest path, tossing a coin where both axes are left to go, and stays. What it
    passes on its way is refuted too, and on the true goal it stays. Pure in its key;
    `jax.vmap` it over many goals.

    Args: key; redraw: whether to draw another target as soon as one is refuted, or only in
        the next episode; size, steps, episodes: see `grid_optimum`.

    Returns: reward of each episode, [episodes].
    Raises: ValueError for sizes out of range.

    >>> grid_posterior_sampling(jax.random.key(0)).shape
    (4,)
    """
    checks.check_sizes(3, size=size)
    checks.check_sizes(steps=steps, episodes=episodes)
    checks.check_flags(redraw=redraw)
    checks.check_key(key)
    row, column = jnp.divmod(jnp.arange(size * size), size)
    goals = (row > 1) | (column > 1)
    key_goal, key_trial = jax.random.split(key)
    goal = _draw(goals, key_goal)

    # numbers are scanned over, not keys, which JAX's check for reuse refuses under vmap
    def one_step(key_steps, carry, number):
        belief, cell = carry
        key_axis, key_target = jax.random.split(jax.random.fold_in(key_steps, number))
        cell = _towards(cell, belief.target, size, key_axis)
        belief = _seen(belief, cell, goal, redraw, key_target)
        return (belief, cell), PENALTY + GAIN * (cell == goal)

    def one_episode(left, number):
        key_target, key_steps = jax.random.split(jax.random.fold_in(key_trial, number))
        start = Belief(left, _draw(left, key_target)), jnp.zeros((), jnp.int32)
        one = partial(one_step, key_steps)
        (belief, _), rewards = jax.lax.scan(one, start, jnp.arange(steps))
        return belief.left, jnp.sum(rewards)

    return jax.lax.scan(one_episode, goals, jnp.arange(episodes))[1]


def _draw(cells: jax.Array, key: jax.Array) -> jax.Array:
    """Any of the cells, each as likely."""
    logits = jnp.where(cells, 0.0, -jnp.inf)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _towards(cell, target, size: int, key: jax.Array) -> jax.Array:
    """One step of a shortest path; the target itself is not left."""
    row, column = jnp.divmod(cell, size)
    target_row, target_column = jnp.divmod(target, size)
    down, right = jnp.sign(target_row - row), jnp.sign(target_column - column)
    by_row = (right == 0) | ((down != 0) & jax.random.bernoulli(key))
    return cell + jnp.where(by_row, size * down, right)


def _seen(belief: Belief, cell, goal, redraw: bool, key: jax.Array) -> Belief:
    """What standing on a cell says; on the goal all other cells are refuted."""
    here = jnp.arange(len(belief.left)) == cell
    found = cell == goal
    left = jnp.where(found, here, belief.left & ~here)
    refuted = ~left[belief.target] & (redraw | found)
    return Belief(left, jnp.where(refuted, _draw(left, key), belief.target))
