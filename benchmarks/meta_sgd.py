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
from report import device, save, spelled, table

import jaxmeta as jm

PUBLISHED = {"MAML": (1.13, 0.85, 0.71), "Meta-SGD": (0.90, 0.63, 0.50)}


@dataclass
class Config:
    """One table; the defaults are that of README.md."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 60_000
    tasks_per_step: int = 4
    train_shots: int = 5
    test_shots: tuple[int, ...] = (5, 10, 20)
    test_tasks: int = 1000


def learner(method: str) -> jm.MetaLearner:
    """One of the two, on the network of the paper."""
    if method == "MAML":
        return jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    return jm.meta_sgd(jm.models.mlp(), inner_lr=(0.005, 0.1), loss=jm.losses.mse)


def run(key: jax.Array, method: str, config: Config) -> np.ndarray:
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
    errors = []
    for shots in config.test_shots:
        test = jm.tasks.sinusoid(shots, 100)
        report = jm.evaluate(
            made, state.params, test, num_tasks=config.test_tasks, key=key_test
        )
        errors.append(report.mean["loss"])
    return np.array(errors)


def main(config: Config) -> None:
    """Run both, print the table and the ratio, keep the numbers."""
    results = {
        method: np.stack([run(jax.random.key(s), method, config) for s in config.seeds])
        for method in PUBLISHED
    }
    ratio = results["Meta-SGD"].mean(axis=0) / results["MAML"].mean(axis=0)
    rows = []
    for method, errors in results.items():
        cells = [spelled(errors[:, i]) for i in range(len(config.test_shots))]
        for who, values in (("ours", cells), ("published", PUBLISHED[method])):
            shots = {
                f"{n}-shot": v for n, v in zip(config.test_shots, values, strict=True)
            }
            rows.append({"method": f"{method}, {who}"} | shots)
    last = {
        f"{n}-shot": f"{r:.2f}" for n, r in zip(config.test_shots, ratio, strict=True)
    }
    rows.append({"method": "Meta-SGD / MAML, ours"} | last)
    title = f"Sinusoid, trained with {config.train_shots} shots, mean (range) of "
    table(f"{title}{len(config.seeds)} seeds; {device()}", rows)
    numbers = {method: errors.tolist() for method, errors in results.items()}
    print(save("meta_sgd", numbers | {"ratio": ratio.tolist()}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
