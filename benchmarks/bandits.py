"""RL^2 on Bernoulli bandits, beside the exact optimum and agents that know the prior.

    python benchmarks/bandits.py
    python benchmarks/bandits.py --arms 10
    python benchmarks/bandits.py --arms 50
    python benchmarks/bandits.py --pulls 100

Chances are uniform in [0, 1]; a trial is one episode of pulls. Tested on unseen bandits
with the last parameters of each seed. Of ten pulls the optimum is known, by dynamic
programming over counts; of a hundred with five arms Gittins indices come closest.
"""

from dataclasses import asdict, dataclass

import jax
import tyro
from acting import TINY, Training, acting, exact, lines, trained
from published import published
from report import device, save, table
from tyro.conf import Suppress

import jaxmeta as jm
from jaxmeta.envs import baselines

# (arms, pulls): how it is trained
SETTINGS = {
    (5, 10): Training(reward_mean=0.5),
    (10, 10): Training(reward_mean=0.5),
    (50, 10): Training(hidden=128, updates=2000, reward_mean=0.5),
    (5, 100): Training(
        hidden=128, updates=1000, learning_rate=1e-3, entropy=0.02, reward_mean=0.5
    ),
}


@dataclass
class Config:
    """The problem."""

    arms: int = 5
    pulls: int = 10
    training: Suppress[Training | None] = None  # that of `SETTINGS`
    test_tasks: int = 10_000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(2, 3, TINY, test_tasks=4)


def run(key: jax.Array, config: Config) -> dict:
    """Rows of RL^2's seeds and of agents that learn nothing; minutes of training."""
    arms, pulls = config.arms, config.pulls
    env, training = (
        jm.envs.bandit(arms, pulls),
        config.training or SETTINGS[arms, pulls],
    )
    key_train, key_test = jax.random.split(key)
    agent, params, minutes = trained(key_train, env, training)
    test, of_seeds = acting(env, config.test_tasks, key_test)
    rows = [
        *of_seeds(agent, params, training),
        test("random", baselines.random_arm(arms)),
        test("greedy", baselines.greedy(arms)),
        test("UCB1, constant 0.2", baselines.ucb1(arms, 0.2)),
        test("Thompson", baselines.thompson(arms)),
        test("Gittins, finite horizon", baselines.gittins(arms, pulls)),
    ]
    if pulls <= 10 or arms == 2:  # else out of reach
        rows.append(exact("optimum", [baselines.bandit_optimum(arms, pulls)]))
    return {"rows": rows, "minutes": minutes, "training": asdict(training)}


def spelled(results: dict) -> list[dict]:
    """Lines of the table, with what is published."""
    config = results["config"]
    setting = f"{config['arms']} arms, {config['pulls']} pulls"
    rows = lines(results["rows"], form=".3f")
    theirs = lambda agent: published("bandits", agent.split(",")[0]).get(setting, "-")
    return [line | {"published": theirs(line["agent"])} for line in rows]


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    where = f"{config.arms} arms, {config.pulls} pulls"
    took = f"trained in {results['minutes']:.1f} minutes, all seeds"
    table(f"{where}; {took}; {device()}", spelled(results))
    print(save(f"bandits_{config.arms}_{config.pulls}", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
