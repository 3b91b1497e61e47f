"""ProMP in four corners, beside MAML with the score surrogate, which looks less ahead.

    python benchmarks/corners.py

One of four corners pays, so that adapting needs exploring. Returns before and after each
of three updates of 40 episodes, with the last parameters. Beside them stand rules that
know the corner, and rules that do not: the two ends of what adapting can bring.
"""

from dataclasses import asdict, dataclass
from functools import partial

import jax
import jax.numpy as jnp
import tyro
from acting import acting
from adapting import TINY, Training, brief, policy, spelled, trained, updating
from report import device, save, table

import jaxmeta as jm
from jaxmeta.envs import baselines
from jaxmeta.learners.reinforcement import surrogates

MOVE = 0.2  # the largest, on each axis

TRAINING = Training(400, falling=True)


@dataclass
class Config:
    """The problem, and how both learners are trained."""

    learners: tuple[str, ...] = ("ProMP", "MAML, score")
    horizon: int = 100
    inner_steps: int = 2
    init_std: float = 2.0  # of actions whose largest is 1
    training: Training = TRAINING
    test_tasks: int = 200
    test_episodes: int = 40  # of an update

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(("ProMP",), 3, 1, training=TINY, test_tasks=2, test_episodes=2)


def pacer(horizon: int) -> jm.Agent:
    """Who knows the corner and is paid for leaving the rhombus as often as time allows,
    then for the way to the corner; returning costs nothing."""
    none = jnp.zeros(())

    def act(adapted, step, obs, last, key):
        del adapted, key
        step = jnp.where(last.done > 0, 0, step)
        place, corner = obs[:2], obs[2:]
        back = (jnp.sum(jnp.abs(place)) >= 0.5) & (step < horizon - 11)
        action = jnp.where(back, -jnp.sign(corner), (corner - place) / MOVE)
        return step + 1, action, none, none

    return baselines.still(jm.envs.Box(2))._replace(
        begin=lambda adapted: jnp.zeros((), jnp.int32), act=act
    )


def to_and_fro() -> jm.Agent:
    """Who knows nothing: up between two corners, across the line between them in each
    step, which each time is progress in the quadrant of the one or of the other."""

    def rule(place, key):
        del key
        return jnp.array([jnp.where(place[0] > 0, -1, 1), (2 - place[1]) / MOVE])

    return baselines.reactive(rule)


def run(key: jax.Array, config: Config) -> dict:
    """Rows of each learner's seeds and of rules that learn nothing; minutes of training."""
    env = jm.envs.corners(horizon=config.horizon)
    t, size = config.training, (config.test_tasks, config.test_episodes)
    key_train, key_test = jax.random.split(key)
    test, of_seeds = acting(env, size[0], key_test, size[1])
    test_told, _ = acting(jm.envs.told(env), size[0], key_test, size[1])
    how = {"inner_steps": config.inner_steps, "init_std": config.init_std}
    learners = {
        "ProMP": jm.promp,
        "MAML, score": partial(jm.maml_rl, surrogate=surrogates.score),
    }
    rows, minutes = [], 0.0
    for name in config.learners:
        agent = learners[name](policy(t), env, **how)
        params, took = trained(jax.random.clone(key_train), agent, env, t)
        rows += of_seeds(updating(agent, t), params, t, name)
        minutes += took
    rows += [
        test("nothing known, to and fro", updating(to_and_fro(), t)),
        test_told("corner known, straight to it", updating(baselines.glider(MOVE), t)),
        test_told("corner known, pacing", updating(pacer(config.horizon), t)),
    ]
    return {"rows": [brief(row) for row in rows], "minutes": minutes}


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    took = f"trained in {results['minutes']:.1f} minutes, both learners"
    table(f"Four corners; {took}; {device()}", spelled(results))
    print(save("corners", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
