"""Halting in the inner loop: sinusoids with up to five steps, and what fewer steps cost.

    python benchmarks/halting.py

`halting_maml` (Graves 2016 in the inner loop of MAML) learns how many of five gradient
steps a task needs, at several prices of a step; beside it MAML with a fixed number of steps,
and joint training: one network for all tasks, whose head alone is adapted in the test.
"""

from dataclasses import dataclass

import jax
import optax
import tyro
from report import device, save, stacked, table
from report import spelled as of_seeds

import jaxmeta as jm

OUTER = optax.adam(1e-3)  # one object, one program for all seeds


@dataclass
class Config:
    """How long, at which prices; the defaults are the table of halting.md."""

    seeds: tuple[int, ...] = (0, 1)
    steps: int = 3000
    tasks_per_step: int = 10
    inner_steps: int = 5
    fewer: tuple[int, ...] = (1,)
    prices: tuple[float, ...] = (0.01, 0.1)
    test_tasks: int = 1000
    width: int = 40

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(
            **{"seeds": (0,), "steps": 3, "tasks_per_step": 2, "inner_steps": 2},
            **{"fewer": (), "prices": (0.1,), "test_tasks": 4, "width": 2},
        )


def learners(config: Config) -> dict[str, tuple[jm.MetaLearner, jm.MetaLearner]]:
    """row -> (what is trained, what is tested with its parameters)."""
    network = jm.models.mlp(hidden=(config.width, config.width))
    given = {"inner_lr": 0.01, "loss": jm.losses.mse}
    joint = jm.maml(network, inner_steps=0, **given)
    rows = {
        "joint training, head adapted": (
            joint,
            jm.anil(network, inner_steps=config.inner_steps, **given),
        )
    }
    for steps in (*config.fewer, config.inner_steps):
        maml = jm.maml(network, inner_steps=steps, **given)
        rows[f"MAML, {steps} steps"] = (maml, maml)
    for price in config.prices:
        halts = jm.halting_maml(
            network, inner_steps=config.inner_steps, ponder_weight=price, **given
        )
        rows[f"halting_maml, a step costs {price:g}"] = (halts, halts)
    return rows


def run(key: jax.Array, config: Config) -> dict[str, dict]:
    """row -> error, and mean number of steps, [seeds] each."""
    del key  # those of the seeds
    waves = jm.tasks.sinusoid(shots=10, queries=10)
    return {
        name: stacked([one(*pair, waves, seed, config) for seed in config.seeds])
        for name, pair in learners(config).items()
    }


def one(trained, tested, waves, seed: int, config: Config) -> dict[str, float]:
    """Of one seed; a learner without a choice takes the steps that its row says."""
    key_train, key_test = jax.random.split(jax.random.key(seed))
    state = jm.fit(
        *(trained, waves, OUTER),
        **{"steps": config.steps, "key": key_train, "chunk": min(1000, config.steps)},
        tasks_per_step=config.tasks_per_step,
    )
    mean = jm.evaluate(
        tested, state.params, waves, num_tasks=config.test_tasks, key=key_test
    ).mean
    return {"error": mean["loss"]} | {n: mean[n] for n in ("steps",) if n in mean}


def spelled(results: dict) -> list[dict]:
    """Rows of the table."""
    return [
        {
            **{"learner": name, "mean squared error": of_seeds(r["error"], ".3f")},
            "steps taken": of_seeds(r["steps"]) if "steps" in r else "all",
        }
        for name, r in results.items()
    ]


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = run(jax.random.key(0), config)
    path = save("halting", results)
    table(f"Sinusoids, 10 shots, {device()}", spelled(results))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
