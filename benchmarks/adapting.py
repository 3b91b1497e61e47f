"""What the experiments of policies that adapt share: training, and the table of returns
before and after each of three updates."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from acting import fitted, lines

import jaxmeta as jm
from jaxmeta.types import Model

UPDATES = 3  # of a test
COLUMNS = {
    "return_0": "before",
    "return_1": "after 1",
    "return_2": "after 2",
    "return": "after 3",
}


@dataclass(frozen=True)
class Training:
    """The policy, and how it is trained: by Adam, several times on the same trials."""

    steps: int
    hidden: tuple[int, ...] = (64, 64)
    tasks: int = 40  # of a step
    episodes: int = 20  # before each inner step, and after the last
    epochs: int = 5
    learning_rate: float = 1e-3
    falling: bool = False  # the rate, to 0
    seeds: tuple[int, ...] = (0,)
    updates: int = UPDATES


TINY = Training(1, (4,), tasks=2, episodes=2, epochs=1, updates=2)


def policy(t: Training) -> Model:
    """A place on the plane -> means of a move."""
    return jm.models.mlp(2, 2, t.hidden, activation=jnp.tanh)


def trained(key: jax.Array, agent: jm.Agent, env: jm.envs.Env, t: Training):
    """(parameters [seeds], minutes of all seeds together)."""
    rate = optax.linear_schedule(
        t.learning_rate, 0.0 if t.falling else t.learning_rate, t.steps * t.epochs
    )
    outer = jm.policy_gradient(
        agent, env, optax.adam(rate), tasks_per_step=t.tasks,
        episodes=t.episodes, epochs=t.epochs, minibatches=1,
    )  # fmt: skip
    return fitted(key, outer, t.steps, t.seeds, chunk=10)


def updating(agent: jm.Agent, t: Training) -> jm.Agent:
    """Tested after each of `t.updates` updates, however many it was trained with."""
    return agent._replace(updates=t.updates)


def brief(row: dict) -> dict:
    """A row of these columns: agents with a memory have one for each episode, too."""
    known = [c for c in COLUMNS if c in row["mean"]]
    parts = {part: {c: row[part][c] for c in known} for part in ("mean", "ci95")}
    return row | parts


def spelled(results: dict) -> list[dict]:
    """Lines of the table."""
    rows = results["rows"]
    return [
        {COLUMNS.get(key, key): said for key, said in line.items()}
        for line in lines(rows, tuple(rows[0]["mean"]))
    ]
