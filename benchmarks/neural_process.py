"""Conditional neural process on 1-D Gaussian processes, against the exact posterior.

    python benchmarks/neural_process.py

Protocol of Nguyen, Grover 2022 (arXiv 2207.04179): squared-exponential kernels, width 128,
16 tasks a step, Adam 5e-4 with cosine decay; they train for 100,000 steps. The
figure is the mean log-likelihood of a target point. The exact posterior knows each task's
kernel, so it is a ceiling. The predicted standard deviation is at least 0.01.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from report import device, save, table

import jaxmeta as jm
from jaxmeta.outer import task_keys
from jaxmeta.training.evaluate import summarize

PUBLISHED = "0.265 ± 0.015 (100,000 steps, 5 seeds)"


@dataclass
class Config:
    """One table; the defaults are the published row of README.md."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 20_000
    evaluations: int = 10  # along the way, for the picture
    tasks_per_step: int = 16
    width: int = 128
    learning_rate: float = 5e-4
    test_tasks: int = 3000


def run(key: jax.Array, config: Config) -> dict[str, np.ndarray]:
    """Train one network: steps [n], its log-likelihood [n], the exact one []."""
    width = config.width
    learner = jm.cnp(
        jm.models.mlp(2, width, (width,) * 4),
        jm.models.mlp(1 + width, 2, (width,) * 3),
        min_std=0.01,
    )
    sampler = jm.tasks.gaussian_process()
    optimizer = optax.adam(
        optax.cosine_decay_schedule(config.learning_rate, config.steps)
    )
    key_train, key_test = jax.random.split(key)
    points, values, state = [], [], None
    for part in range(1, config.evaluations + 1):
        state = jm.fit(
            learner,
            sampler,
            optimizer,
            steps=config.steps * part // config.evaluations,
            key=key_train,
            tasks_per_step=config.tasks_per_step,
            chunk=200,
            state=state,
        )
        report = jm.evaluate(
            learner, state.params, sampler, num_tasks=config.test_tasks, key=key_test
        )
        points.append(int(state.step))
        values.append(report.mean["log_likelihood"])
    exact = jax.jit(jax.vmap(sampler.exact_log_likelihood))(
        task_keys(key_test, config.test_tasks)
    )
    return {
        "steps": np.array(points),
        "log_likelihood": np.array(values),
        "exact": np.array(summarize({"log_likelihood": exact}).mean["log_likelihood"]),
    }


def plot(runs: list[dict[str, np.ndarray]], path: Path) -> None:
    """Log-likelihood of each seed against meta-steps, and the exact one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for i, result in enumerate(runs):
        label = "CNP, a line a seed" if i == 0 else None
        axes.plot(result["steps"], result["log_likelihood"], "C0o-", label=label)
    exact = float(np.mean([result["exact"] for result in runs]))
    axes.axhline(exact, color="black", linestyle="--", label="exact process")
    axes.set_xlabel("meta-steps")
    axes.set_ylabel("log-likelihood of a target point")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(config: Config) -> None:
    """Run all seeds, print the table, keep numbers and picture."""
    runs = [run(jax.random.key(seed), config) for seed in config.seeds]
    kept = [{name: v.tolist() for name, v in result.items()} for result in runs]
    plot(runs, save("neural_process", {"runs": kept}).with_suffix(".png"))
    final = np.array([result["log_likelihood"][-1] for result in runs])
    first = np.array([result["log_likelihood"][0] for result in runs])
    exact = np.array([result["exact"] for result in runs])
    spelled = lambda v: f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})"
    rows = [
        {"what": f"CNP after {runs[0]['steps'][0]} steps", "nats": spelled(first)},
        {"what": f"CNP after {config.steps} steps", "nats": spelled(final)},
        {"what": "CNP, published", "nats": PUBLISHED},
        {"what": "exact process, a ceiling", "nats": spelled(exact)},
    ]
    title = "Log-likelihood of a target point, mean (range) of"
    table(f"{title} {len(runs)} seeds; {device()}", rows)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
