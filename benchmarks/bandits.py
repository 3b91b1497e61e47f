"""RL^2 on Bernoulli bandits, beside the exact optimum and agents that know the prior.

    python benchmarks/bandits.py
    python benchmarks/bandits.py --arms 10

Chances are uniform in [0, 1]; a trial is one episode of pulls. Tested on unseen bandits
with the last parameters of each seed; the optimum is dynamic programming over counts.
"""

import time
from dataclasses import asdict, dataclass

import jax
import numpy as np
import optax
import tyro
from report import device, save, spelled, table

import jaxmeta as jm
from jaxmeta.envs import baselines


@dataclass
class Config:
    """The problem, the agent, and how it is trained."""

    arms: int = 5
    pulls: int = 10
    hidden: int = 64
    updates: int = 800
    trials: int = 1024  # of an update
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 3e-3  # falling to 0
    clip: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2)
    test_tasks: int = 10_000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(2, 3, 4, updates=2, trials=8, seeds=(0,), test_tasks=4)


def trained(key: jax.Array, config: Config, agent, env):
    """(parameters, minutes)."""
    updates = config.updates * config.epochs * config.minibatches
    rate = optax.linear_schedule(config.learning_rate, 0.0, updates)
    outer = jm.policy_gradient(
        agent,
        env,
        optax.adam(rate, eps=1e-5),
        tasks_per_step=config.trials,
        epochs=config.epochs,
        minibatches=config.minibatches,
    )
    start = time.perf_counter()
    with jm.Log(None, config.updates) as log:
        state = jm.fit(outer, None, steps=config.updates, key=key, log=log)
        jax.block_until_ready(state)
    return state.params, (time.perf_counter() - start) / 60


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: agent, seed, mean return, half its 95 % interval, minutes of training."""
    env = jm.envs.bandit(config.arms, config.pulls)
    key_train, key_test = jax.random.split(key)
    rows = []

    def row(name, agent, params=(), seed=None, minutes=None):
        report = jm.evaluate_returns(
            agent, params, env, num_tasks=config.test_tasks, key=jax.random.clone(key_test)
        )  # fmt: skip
        found = {"return": report.mean["return"], "ci95": report.ci95["return"]}
        rows.append({"agent": name, "seed": seed, **found, "minutes": minutes})

    agent = jm.rl2(env, hidden=config.hidden, clip=config.clip)
    for seed in config.seeds:
        seeded = jax.random.fold_in(key_train, seed)
        params, minutes = trained(seeded, config, agent, env)
        row("RL^2", agent, params, seed, minutes)
    arms = config.arms
    row("random", baselines.random_arm(arms))
    row("greedy", baselines.greedy(arms))
    row("UCB1, constant 0.2", baselines.ucb1(arms, 0.2))
    row("Thompson", baselines.thompson(arms))
    row("Gittins, finite horizon", baselines.gittins(arms, config.pulls))
    optimum = baselines.bandit_optimum(arms, config.pulls)
    rows.append({"agent": "optimum", "seed": None, "return": optimum, "ci95": 0.0})
    return {"rows": rows}


def spelled_rows(results: dict) -> list[dict]:
    """Lines of the table: RL^2's seeds together."""
    rows = results["rows"]
    ours = [r for r in rows if r["agent"] == "RL^2"]
    form = lambda key, f: spelled([r[key] for r in ours], f)
    error = f"{np.mean([r['ci95'] for r in ours]):.3f}"
    lines = [
        {"agent": f"RL^2, {len(ours)} seeds", "return": form("return", ".3f"),
         "95 % interval of a seed": error, "minutes a seed": form("minutes", ".1f")}
    ]  # fmt: skip
    for r in rows[len(ours) :]:
        error = f"{r['ci95']:.3f}" if r["ci95"] else "exact"
        lines.append(
            {"agent": r["agent"], "return": f"{r['return']:.3f}",
             "95 % interval of a seed": error, "minutes a seed": ""}
        )  # fmt: skip
    return lines


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = run(jax.random.key(0), config)
    table(
        f"{config.arms} arms, {config.pulls} pulls, {device()}", spelled_rows(results)
    )
    name = f"bandits_{config.arms}_{config.pulls}"
    print(save(name, {"config": asdict(config), **results}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
