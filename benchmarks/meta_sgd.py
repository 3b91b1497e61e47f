"""Meta-SGD beside MAML on sinusoids, trained with 5 shots.

    python benchmarks/meta_sgd.py

Li et al. 2017, table 1: one inner step in training and test, 4 tasks a step, 60,000
meta-steps of Adam 1e-3, step sizes alpha drawn from 0.005..0.1 at the start and MAML's
0.01; mean squared error over 1,000 test tasks with 5, 10 and 20 shots.
"""

from dataclasses import dataclass

import jax
import numpy as np
import optax
import tyro
from published import published
from report import device, save, seeds, spelled, table

import jaxmeta as jm

METHODS = ("MAML", "Meta-SGD")


@dataclass
class Config:
    """One table; the defaults are that of meta_sgd.md."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 60_000
    tasks_per_step: int = 4
    train_shots: int = 5
    test_shots: tuple[int, ...] = (5, 10, 20)
    test_tasks: int = 1000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(seeds=(0,), steps=10, test_shots=(5, 10), test_tasks=10)


def learner(method: str) -> jm.MetaLearner:
    """One of the two, on the network of the paper."""
    if method == "MAML":
        return jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    return jm.meta_sgd(jm.models.mlp(), inner_lr=(0.005, 0.1), loss=jm.losses.mse)


def errors(key: jax.Array, method: str, config: Config) -> np.ndarray:
    """Train and test one network; errors [test_shots]."""
    key_train, key_test = jax.random.split(key)
    made = learner(method)
    state = jm.fit(
        made,
        jm.tasks.sinusoid(config.train_shots, 10),
        optax.adam(1e-3),
        steps=config.steps,
        key=key_train,
        tasks_per_step=config.tasks_per_step,
        chunk=1000,
    )
    found = []
    for shots in config.test_shots:
        test = jm.tasks.sinusoid(shots, 100)
        report = jm.evaluate(
            made, state.params, test, num_tasks=config.test_tasks, key=key_test
        )
        found.append(report.mean["loss"])
    return np.array(found)


def run(key: jax.Array, config: Config) -> dict[str, np.ndarray]:
    """Errors [test_shots] of both methods, trained on the same tasks."""
    return {m: errors(jax.random.clone(key), m, config) for m in METHODS}


def ratio(results: dict) -> np.ndarray:
    """The mean error of Meta-SGD over that of MAML, [test_shots]."""
    return np.mean(results["Meta-SGD"], axis=0) / np.mean(results["MAML"], axis=0)


def rows(results: dict, shots: tuple[int, ...]) -> list[dict]:
    """The table: ours and the published of both, and our ratio."""
    columns, lines = [f"{n}-shot" for n in shots], []
    for method in METHODS:
        found = zip(columns, np.transpose(results[method]), strict=True)
        ours, theirs = {c: spelled(v) for c, v in found}, published("meta_sgd", method)
        for who, cells in (("ours", ours), ("published", theirs)):
            line = {c: cells.get(c, "-") for c in columns}
            lines.append({"method": f"{method}, {who}"} | line)
    last = zip(columns, ratio(results), strict=True)
    ours = {column: f"{value:.2f}" for column, value in last}
    return [*lines, {"method": "Meta-SGD / MAML, ours"} | ours]


def main(config: Config) -> None:
    """Run both, print the table and the ratio, keep the numbers."""
    results = seeds(run, config)
    title = f"Sinusoid, trained with {config.train_shots} shots, mean (range) of "
    lines = rows(results, config.test_shots)
    table(f"{title}{len(config.seeds)} seeds; {device()}", lines)
    print(save("meta_sgd", results | {"ratio": ratio(results)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
