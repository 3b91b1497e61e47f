"""RL^2 on random tabular MDPs, beside posterior sampling and the optimum of each MDP.

    python benchmarks/tabular_mdp.py

10 states, 5 actions; a trial is 10 episodes of 10 steps in one MDP. Tested on unseen MDPs
with the last parameters of each seed.
"""

from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import tyro
from acting import TINY, Training, acting, lines, simulated, trained
from published import published
from report import device, save, table

import jaxmeta as jm
from jaxmeta.envs import baselines

TRAINING = Training(
    hidden=256, updates=1100, trials=512, learning_rate=2e-3, entropy=0.05, discount=0.9,
    reward_mean=1.0, reward_std=2.0,
)  # fmt: skip


@dataclass
class Config:
    """The problem, the agent and how it is trained."""

    states: int = 10
    actions: int = 5
    horizon: int = 10
    episodes: int = 10
    training: Training = TRAINING
    test_tasks: int = 10_000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(3, 2, 2, 2, TINY, test_tasks=4)


def run(key: jax.Array, config: Config) -> dict:
    """Rows of RL^2's seeds and of agents that learn nothing; minutes of training."""
    env = jm.envs.tabular(config.states, config.actions, config.horizon)
    episodes, tasks, training = config.episodes, config.test_tasks, config.training
    key_train, key_test, key_others = jax.random.split(key, 3)
    agent, params, minutes = trained(key_train, env, training, episodes)
    test, of_seeds = acting(env, tasks, key_test, episodes)

    def sampling(key):
        key_task, key_act = jax.random.split(key)
        sizes = {"episodes": episodes, "horizon": config.horizon}
        mdp = env.sample(key_task)
        return baselines.psrl(mdp.transitions, mdp.rewards, key_act, **sizes)

    def known(key):
        mdp, horizon = env.sample(key), config.horizon
        values, _ = baselines.value_iteration(mdp.transitions, mdp.rewards, horizon)
        return jnp.full(episodes, values[0, 0])

    rows = [
        *of_seeds(agent, params, training),
        test("random", baselines.random_arm(config.actions)),
        simulated("PSRL", sampling, tasks, key_others),
        simulated("MDP known", known, tasks, jax.random.clone(key_others)),
    ]
    return {"rows": rows, "minutes": minutes}


def spelled(results: dict) -> list[dict]:
    """Lines of the table, with what is published."""
    columns = {"episode_1": "episode 1", "episode_10": "episode 10", "total": "total"}
    found = {c: name for c, name in columns.items() if c in results["rows"][0]["mean"]}
    rows = []
    for line in lines(results["rows"], tuple(found), ".1f"):
        theirs = published("tabular_mdp", line["agent"].split(",")[0])
        named = {name: line[c] for c, name in found.items()}
        rows.append(
            {"agent": line["agent"], **named, "published": theirs.get("total", "-")}
        )
    return rows


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    took = f"trained in {results['minutes']:.1f} minutes, all seeds"
    table(f"Tabular MDPs; {took}; {device()}", spelled(results))
    print(save("tabular_mdp", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
