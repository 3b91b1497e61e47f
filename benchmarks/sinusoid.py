"""Sinusoid regression: the MAML paper's 5-shot table, with the pre-training baseline.

    python benchmarks/sinusoid.py

Finn et al. 2017, table 2: mean squared error after 1, 5 and 10 gradient steps on 5
points. Protocol: amplitude U[0.1, 5], phase U[0, pi], x U[-5, 5], 1-40-40-1 relu network,
25 tasks a step, K = 10 points for adaptation and as many for the outer loss, one inner
step of 0.01 in training, Adam 1e-3, 70,000 steps. In the test the first step is 0.01 and
the later ones 0.005: with 0.01 throughout a few tasks diverge after 5 to 10 steps.

Pre-training is MAML with no inner step: one network for all tasks at once, then
fine-tuned with the step size that is best on other tasks.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from published import number, published
from report import device, save, seeds, spelled, table

import jaxmeta as jm

STEPS = (1, 5, 10)
HALVED = optax.piecewise_constant_schedule(0.01, {1: 0.5})  # one program for all seeds


@dataclass
class Config:
    """One table; the defaults are that of sinusoid.md."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 70_000
    tasks_per_step: int = 25
    train_shots: int = 10
    test_shots: int = 5
    test_queries: int = 100
    test_tasks: int = 2000
    fine_tuning: tuple[float, ...] = (0.001, 0.002, 0.003, 0.005, 0.01)

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        small = {"tasks_per_step": 4, "test_tasks": 200, "fine_tuning": (0.01,)}
        return cls(seeds=(0,), steps=2000, **small)


def learner(inner_steps: int, inner_lr=0.01) -> jm.MetaLearner:
    """MAML on the network of the paper."""
    return jm.maml(
        jm.models.mlp(),
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        loss=jm.losses.mse,
    )


def run(key: jax.Array, config: Config) -> dict[str, np.ndarray]:
    """Train both networks; test errors [len(STEPS)] of each."""
    train = jm.tasks.sinusoid(config.train_shots, config.train_shots)
    test = jm.tasks.sinusoid(config.test_shots, config.test_queries)
    key_train, key_test, key_choice = jax.random.split(key, 3)

    def fit(inner_steps):
        return jm.fit(
            learner(inner_steps),
            train,
            optax.adam(1e-3),
            steps=config.steps,
            key=key_train,
            tasks_per_step=config.tasks_per_step,
            chunk=1000,
        ).params

    def errors(params, lr, key, steps=STEPS):
        reports = [
            jm.evaluate(
                learner(n, lr), params, test, num_tasks=config.test_tasks, key=key
            )
            for n in steps
        ]
        return np.array([report.mean["loss"] for report in reports])

    pretrained = fit(inner_steps=0)
    most = STEPS[-1:]
    choices = {
        lr: errors(pretrained, lr, key_choice, most)[-1] for lr in config.fine_tuning
    }
    best = min(choices, key=lambda lr: choices[lr])
    return {
        "MAML": errors(fit(inner_steps=1), HALVED, key_test),
        "pre-trained": errors(pretrained, best, key_test),
    }


def plot(results: dict[str, np.ndarray], path: Path) -> None:
    """Errors [seeds, len(STEPS)] against gradient steps, beside the published ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for i, (name, errors) in enumerate(results.items()):
        axes.errorbar(
            STEPS,
            errors.mean(axis=0),
            yerr=errors.std(axis=0),
            color=f"C{i}",
            marker="o",
            capsize=3,
            label=f"{name}, ours (sd of {len(errors)} seeds)",
        )
        theirs = [number(cell) for cell in published("sinusoid", name).values()]
        axes.plot(STEPS, theirs, f"C{i}--", label=f"{name}, published")
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("mean squared error, 5 shots")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=120)


def rows(results: dict) -> list[dict]:
    """The table: ours and the published, of both networks."""
    lines = []
    for name, errors in results.items():
        columns = zip(STEPS, np.transpose(errors), strict=True)
        ours = {f"after {n}": spelled(found) for n, found in columns}
        lines.append({"method": f"{name}, ours"} | ours)
        lines.append({"method": f"{name}, published"} | published("sinusoid", name))
    return lines


def main(config: Config) -> None:
    """Run all seeds, print the table, keep numbers and picture."""
    results = seeds(run, config)
    path = save("sinusoid", results)
    plot(results, path.with_suffix(".png"))
    title = f"Sinusoid, {config.test_shots}-shot mean squared error, mean (range) of "
    table(f"{title}{len(config.seeds)} seeds; {device()}", rows(results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
