"""RL^2 in a grid with a hidden goal, beside the Bayes-optimal agent and posterior sampling.

    python benchmarks/grid.py

5x5 cells; a trial is 4 episodes of 15 steps with one goal. Tested on trials of their own
with the last parameters of each seed.
"""

from dataclasses import asdict, dataclass

import jax
import tyro
from acting import TINY, Training, acting, exact, lines, simulated, trained
from report import device, save, table

import jaxmeta as jm
from jaxmeta.envs import baselines

TRAINING = Training(hidden=128, updates=1000, trials=512, learning_rate=2e-3, trace=0.8)


@dataclass
class Config:
    """The problem, the agent and how it is trained."""

    size: int = 5
    horizon: int = 15
    episodes: int = 4
    training: Training = TRAINING
    test_tasks: int = 10_000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(3, 6, 2, TINY, test_tasks=4)


def run(key: jax.Array, config: Config) -> dict:
    """Rows of RL^2's seeds and of agents that learn nothing; minutes of training."""
    size, horizon, episodes = config.size, config.horizon, config.episodes
    tasks, training = config.test_tasks, config.training
    env = jm.envs.grid(size, horizon=horizon)
    key_train, key_test, key_others = jax.random.split(key, 3)
    agent, params, minutes = trained(key_train, env, training, episodes)
    test, of_seeds = acting(env, tasks, key_test, episodes)

    def sampling(redraw):
        sizes = {"size": size, "steps": horizon, "episodes": episodes}
        return lambda key: baselines.grid_posterior_sampling(
            key, redraw=redraw, **sizes
        )

    again = jax.random.clone(key_others)
    known = [baselines.known_goal(size, horizon)] * episodes
    rows = [
        *of_seeds(agent, params, training),
        test("random", baselines.random_arm(env.actions[0])),
        simulated(
            "posterior sampling, one goal an episode", sampling(False), tasks, again
        ),
        simulated("posterior sampling", sampling(True), tasks, key_others),
        exact("Bayes-optimal", baselines.grid_optimum(size, horizon, episodes)),
        exact("goal known", known),
    ]
    return {"rows": rows, "minutes": minutes}


def spelled(results: dict) -> list[dict]:
    """Lines of the table."""
    episodes = sorted(c for c in results["rows"][0]["mean"] if c.startswith("episode"))
    return [
        {key.replace("_", " "): said for key, said in line.items()}
        for line in lines(results["rows"], (*episodes, "total"))
    ]


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    took = f"trained in {results['minutes']:.1f} minutes, all seeds"
    table(f"Grid with a hidden goal; {took}; {device()}", spelled(results))
    print(save("grid", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
