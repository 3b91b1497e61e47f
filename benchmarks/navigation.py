"""MAML on 2-D navigation: a few policy gradients, then the point goes to its goal.

    python benchmarks/navigation.py

Goals are uniform in a square and never seen; the reward is minus the distance. Returns
before and after each of three updates of 40 episodes, with the last parameters. Beside
them stand who never moves, and who knows the goal.
"""

from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import tyro
from acting import acting
from adapting import TINY, Training, brief, policy, spelled, trained, updating
from published import published
from report import device, save, table

import jaxmeta as jm
from jaxmeta.envs import baselines

TRAINING = Training(150)


@dataclass
class Config:
    """The problem, and how MAML is trained."""

    horizon: int = 100
    inner_steps: int = 3
    training: Training = TRAINING
    test_tasks: int = 200
    test_episodes: int = 40  # of an update

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(3, 1, TINY, test_tasks=2, test_episodes=2)


def rate(step):
    """alpha, halved after the first update as the authors do at test time."""
    return jnp.where(step == 0, 0.1, 0.05)


def run(key: jax.Array, config: Config) -> dict:
    """Rows of MAML's seeds and of rules that learn nothing; minutes of training."""
    env = jm.envs.navigation(horizon=config.horizon)
    t, size = config.training, (config.test_tasks, config.test_episodes)
    key_train, key_test = jax.random.split(key)
    agent = jm.maml_rl(policy(t), env, inner_lr=rate, inner_steps=config.inner_steps)
    params, minutes = trained(key_train, agent, env, t)
    test, of_seeds = acting(env, size[0], key_test, size[1])
    test_told, _ = acting(jm.envs.told(env), size[0], key_test, size[1])
    rows = [
        *of_seeds(updating(agent, t), params, t, "MAML"),
        test("standing still", updating(baselines.still(jm.envs.Box(2)), t)),
        test_told("goal known, straight to it", updating(baselines.glider(), t)),
    ]
    return {"rows": [brief(row) for row in rows], "minutes": minutes}


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    took = f"trained in {results['minutes']:.1f} minutes, all seeds"
    table(f"2-D navigation; {took}; {device()}", spelled(results))
    print("published:", published("navigation", "MAML"))
    print(save("navigation", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
