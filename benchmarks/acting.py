"""What the experiments of agents share: RL^2 trained from all seeds at once, rows, lines.

Seeds are a population: a network this small leaves most of a device idle, so that three
of them cost a GPU little more time than one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import spelled

import jaxmeta as jm
from jaxmeta.training.evaluate import Report, summarize


@dataclass(frozen=True)
class Training:
    """RL^2's memory, and how it is trained."""

    hidden: int = 64
    updates: int = 800
    trials: int = 1024  # of an update
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 3e-3  # falling to 0
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    discount: float = 0.99
    trace: float = 0.3
    reward_mean: float = 0.0
    reward_std: float = 1.0
    seeds: tuple[int, ...] = (0, 1, 2)


# seconds
TINY = Training(4, updates=2, trials=4, epochs=1, minibatches=2, seeds=(0, 1))


def trained(key: jax.Array, env: jm.envs.Env, t: Training, episodes: int = 1):
    """(agent, parameters [seeds], minutes of all seeds together)."""
    agent = jm.rl2(
        env, hidden=t.hidden, clip=t.clip, entropy=t.entropy, value=t.value,
        discount=t.discount, trace=t.trace, reward_mean=t.reward_mean,
        reward_std=t.reward_std,
    )  # fmt: skip
    steps = t.updates * t.epochs * t.minibatches
    adam = optax.adam(optax.linear_schedule(t.learning_rate, 0.0, steps), eps=1e-5)
    outer = jm.policy_gradient(
        agent, env, adam, tasks_per_step=t.trials, episodes=episodes, epochs=t.epochs,
        minibatches=t.minibatches,
    )  # fmt: skip
    params, minutes = fitted(key, outer, t.updates, t.seeds)
    return agent, params, minutes


def fitted(key: jax.Array, outer: Any, steps: int, seeds: tuple[int, ...], chunk=20):
    """(parameters [seeds], minutes of all seeds together)."""
    together = jm.population(lambda: outer, len(seeds))
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.array(seeds))
    start = time.perf_counter()
    with jm.Log(None, steps) as log:
        state = jm.fit(together, None, steps=steps, key=keys, chunk=chunk, log=log)
        jax.block_until_ready(state)
    return state.params, (time.perf_counter() - start) / 60


def acting(env: jm.envs.Env, tasks: int, key: jax.Array, episodes: int = 1):
    """Two functions: (name, agent) -> its row, and (agent, parameters, training) -> rows of
    what is trained, one a seed. All meet the same tasks; episodes end with the horizon."""

    def test(name: str, agent: jm.Agent, params: Any = ()) -> dict:
        report = jm.evaluate_returns(
            agent, params, env, episodes=episodes, num_tasks=tasks,
            key=jax.random.clone(key),
        )  # fmt: skip
        return row(name, report)

    def of_seeds(agent: jm.Agent, params: Any, t: Any, name: str = "RL^2"):
        member = lambda i: jax.tree.map(lambda a: a[i], params)
        rows = [test(name, agent, member(i)) for i in range(len(t.seeds))]
        return [r | {"seed": seed} for r, seed in zip(rows, t.seeds, strict=True)]

    return test, of_seeds


def simulated(name: str, one: Callable, tasks: int, key: jax.Array) -> dict:
    """The row of what `one(key)` earns in a task of its own, [episodes]."""
    found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, tasks)))
    each = {f"episode_{i + 1}": found[:, i] for i in range(found.shape[1])}
    return row(name, summarize(each | {"total": found.sum(axis=1)}))


def row(name: str, report: Report) -> dict:
    """Name, means over tasks and halves of their 95 % intervals."""
    tables = report.mean, report.ci95
    mean, half = ({"total": t.get("total", t.get("return"))} | t for t in tables)
    return {"agent": name, "mean": mean, "ci95": half}


def exact(name: str, episodes: Any) -> dict:
    """The row of what is known to be earned in each episode."""
    each = {f"episode_{i + 1}": float(mean) for i, mean in enumerate(episodes)}
    return {"agent": name, "mean": each | {"total": sum(each.values())}}


def lines(rows: list[dict], columns: tuple[str, ...] = ("total",), form=".2f"):
    """Lines of the table: what is trained, then the other agents."""
    names = dict.fromkeys(r["agent"] for r in rows if "seed" in r)
    ours = [
        _over_seeds([r for r in rows if r["agent"] == name], columns, form)
        for name in names
    ]
    return [*ours, *(_line(r, columns, form) for r in rows if "seed" not in r)]


def _over_seeds(found: list[dict], columns: tuple[str, ...], form: str) -> dict:
    """Each mean and range over seeds; of one seed its ± interval."""
    name = found[0]["agent"]
    if len(found) == 1:
        return _line(found[0], columns, form) | {"agent": f"{name}, 1 seed"}
    across = lambda column: spelled([r["mean"][column] for r in found], form)
    first = {"agent": f"{name}, {len(found)} seeds"}
    return first | {column: across(column) for column in columns}


def _line(found: dict, columns: tuple[str, ...], form: str) -> dict:
    """Each mean ± its interval; one that is exact alone."""
    said = {c: f"{found['mean'][c]:{form}}" for c in columns}
    if "ci95" in found:
        said = {c: f"{mean} ± {found['ci95'][c]:{form}}" for c, mean in said.items()}
    return {"agent": found["agent"]} | said
