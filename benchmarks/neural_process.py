"""Neural processes on 1-D Gaussian processes, against the exact posterior.

    python benchmarks/neural_process.py
    python benchmarks/neural_process.py --steps 100000 --seeds 0 1 2 3 4   # as published

Protocol of the code of Nguyen, Grover 2022 (arXiv 2207.04179): squared-exponential
kernels, networks of width 128 (TNP-D: 64, 6 layers), 16 tasks a step, Adam 5e-4 with
cosine decay, 4 samples of a latent variable when training, 50 when testing. A predicted
standard deviation is at least 0.1, five times the noise (TNP-D: 0.01, theirs none). They
train for 100,000 steps. The figure is the mean log-likelihood of a target point. The
exact posterior knows each task's kernel, so it is a ceiling.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import optax
import report
import tyro
from published import published
from report import spelled

import jaxmeta as jm
from jaxmeta import keys
from jaxmeta.training.evaluate import summarize

LEARNERS = ("cnp", "neural_process", "anp", "tnpd")


@dataclass
class Config:
    """One table; the defaults are the rows of neural_process.md."""

    learners: tuple[str, ...] = LEARNERS
    seeds: tuple[int, ...] = (0,)
    steps: int = 50_000
    evaluations: int = 10  # along the way, for the picture
    tasks_per_step: int = 16
    width: int = 128  # TNP-D: half of it
    learning_rate: float = 5e-4
    test_tasks: int = 3000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(("cnp",), steps=100, evaluations=2, width=16, test_tasks=50)


def make(name: str, width: int) -> jm.MetaLearner:
    """Networks of the protocol's depths and widths.

    CNP has one encoder of twice the width for their two, and what theirs computes from
    the mean over points is computed by the decoder; their attention adds its queries.
    """
    mlp, set_encoder = jm.models.mlp, jm.models.set_encoder
    decoder = mlp(1 + 2 * width, 2, (width,) * 2)
    if name == "tnpd":
        return jm.tnpd(width=width // 2, hidden=width, layers=6, heads=4, min_std=0.01)
    if name == "anp":
        return jm.anp(
            jm.models.transformer(2, width, width=width, heads=8, layers=1),
            set_encoder(2, 2 * width, hidden=(width,) * 2, after=(width,), heads=8),
            jm.models.cross_attention(1, width, width=width, heads=8, hidden=(width,)),
            decoder,
            train_samples=4,
        )
    encoder, decoder = mlp(2, width, (width,) * 3), mlp(1 + 2 * width, 2, (width,) * 4)
    latent = set_encoder(2, 2 * width, hidden=(width,) * 4, after=(width,))
    if name == "neural_process":
        return jm.neural_process(encoder, latent, decoder, train_samples=4)
    return jm.cnp(mlp(2, 2 * width, (width,) * 3), decoder)


def trained(key: jax.Array, name: str, config: Config) -> dict[str, np.ndarray]:
    """Train one: steps [n], its log-likelihood [n], the exact one [], minutes []."""
    learner, sampler = make(name, config.width), jm.tasks.gaussian_process()
    optimizer = optax.adam(
        optax.cosine_decay_schedule(config.learning_rate, config.steps)
    )
    key_train, key_test = jax.random.split(key)
    points, values, state, seconds = [], [], None, 0.0
    for part in range(1, config.evaluations + 1):
        start = time.perf_counter()
        state = jm.fit(
            learner,
            sampler,
            optimizer,
            steps=config.steps * part // config.evaluations,
            key=key_train,
            tasks_per_step=config.tasks_per_step,
            tasks_at_once=config.tasks_per_step,
            chunk=100,
            state=state,
        )
        seconds += time.perf_counter() - start
        found = jm.evaluate(
            learner, state.params, sampler, num_tasks=config.test_tasks, key=key_test
        )
        points.append(int(state.step))
        values.append(found.mean["log_likelihood"])
        print(name, points[-1], f"{values[-1]:.3f} {seconds / 60:.1f} min", flush=True)
    exact = jax.jit(jax.vmap(sampler.exact_log_likelihood))(
        keys.tasks(key_test, config.test_tasks)
    )
    return {
        "steps": np.array(points),
        "log_likelihood": np.array(values),
        "exact": np.array(summarize({"log_likelihood": exact}).mean["log_likelihood"]),
        "minutes": np.array(seconds / 60),
    }


def run(key: jax.Array, config: Config) -> dict[str, dict[str, np.ndarray]]:
    """What `trained` finds of each learner, on the same tasks."""
    return {n: trained(jax.random.clone(key), n, config) for n in config.learners}


def stored(steps: int) -> dict[str, list[dict[str, np.ndarray]]]:
    """What is kept of all learners trained that long, in one call or in several."""
    runs = {}
    for name in LEARNERS:
        path = report.FOLDER / f"neural_process_{name}_{steps}.json"
        if path.exists():
            results = json.loads(path.read_text())["runs"]
            runs[name] = [{k: np.array(v) for k, v in r.items()} for r in results]
    return runs


def plot(results: dict[str, list[dict[str, np.ndarray]]], path: Path) -> None:
    """Log-likelihood of each seed against meta-steps, and the exact one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for colour, (name, runs) in enumerate(results.items()):
        for i, run in enumerate(runs):
            x, y, label = run["steps"], run["log_likelihood"], None if i else name
            axes.plot(x, y, f"C{colour}.-", label=label)
    exact = np.mean([run["exact"] for runs in results.values() for run in runs])
    axes.axhline(float(exact), color="black", linestyle="--", label="exact process")
    axes.set_xlabel("meta-steps")
    axes.set_ylabel("log-likelihood of a target point")
    axes.legend()
    figure.savefig(path, dpi=120)


def rows(results: dict[str, list[dict]]) -> list[dict]:
    """A row a learner: early, at the end, published, minutes; last the ceiling."""
    lines = []
    for name, runs in results.items():
        steps, last = runs[0]["steps"], f"after {runs[0]['steps'][-1]:,} steps"
        values = np.transpose([run["log_likelihood"] for run in runs])
        line = {"learner": name, f"after {steps[0]:,} steps": spelled(values[0], ".3f")}
        line[last] = spelled(values[-1], ".3f")
        for column, theirs in published("neural_process", name).items():
            line[f"published, {column}"] = theirs
        minutes = spelled([run["minutes"] for run in runs], ".1f")
        lines.append(line | {"minutes": minutes})
    exact = np.unique([run["exact"] for runs in results.values() for run in runs])
    ceiling = dict.fromkeys(lines[0], "") | {"learner": "exact process, a ceiling"}
    return [*lines, ceiling | {last: spelled(exact, ".3f")}]


def main(config: Config) -> None:
    """Run all learners and seeds, print the table, keep numbers and picture.

    The picture has what other calls of as many steps kept, too.
    """
    results = {}
    for name in config.learners:
        one, seeds = replace(config, learners=(name,)), config.seeds
        results[name] = [run(jax.random.key(seed), one)[name] for seed in seeds]
        path = f"neural_process_{name}_{config.steps}"
        report.save(path, {"runs": results[name]})
    picture = report.FOLDER / f"neural_process_{config.steps}.png"
    plot(stored(config.steps), picture)
    title = f"Log-likelihood of a target point, nats, {report.device()}"
    report.table(title, rows(results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
