"""Omniglot, 1-shot, in the settings of the papers; as much of each as there is time for.

Trained on the 1,200 characters of the Vinyals train and validation lists, tested on the
423 of the test list; rotations by 90 degrees are classes of their own in both. Batch norm
uses the statistics of the batch at hand (transductive), as published.

    python benchmarks/omniglot.py --root ../shared/data/omniglot --learners maml protonet
    python benchmarks/omniglot.py --ways 20 --fraction 1.0        # every learner, whole

`--fraction` scales each paper's number of meta-steps; below 1 the outer rate follows a
cosine to zero in place of a constant (Reptile's is linear always). Settings are at
`EXPERIMENTS`; 1,000 test tasks, intervals over tasks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
import tyro
from characters import few_shot
from networks import Conv4, Strided, build
from published import published
from report import device, save, table

import jaxmeta as jm

Schedule = Callable[[int], optax.GradientTransformation]


def adam(steps: int, end: float = 0.0) -> optax.GradientTransformation:
    """Adam, 1e-3 falling along a cosine to a part of it."""
    return optax.adam(optax.cosine_decay_schedule(1e-3, steps, alpha=end))


def linear_sgd(steps: int) -> optax.GradientTransformation:
    """SGD whose rate falls from 1 to 0."""
    return optax.sgd(optax.linear_schedule(1.0, 0.0, steps))


@dataclass(frozen=True)
class Experiment:
    """One row: the learner's arguments, its networks, its tasks, its schedule."""

    steps: int  # meta-steps in the paper
    tasks: int  # of a meta-step
    hyper: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)  # what is different in the test
    of_steps: dict[str, float] = field(default_factory=dict)  # as parts of the steps
    networks: type[Conv4] = Strided
    train_ways: int | None = None
    shots: int = 1  # support examples of a training task
    queries: int = 1
    test_queries: int = 1
    outer: Schedule | None = None  # None: Adam, 1e-3, constant where the run is whole


adam_b1_0 = partial(optax.adam, b1=0.0)
maml_5 = Experiment(60_000, 32, {"inner_lr": 0.4}, {"inner_steps": 3})
maml_20 = Experiment(60_000, 16, {"inner_lr": 0.1, "inner_steps": 5})
alpha = {"inner_lr": (0.005, 0.1)}
reptile_5 = {"rule": adam_b1_0, "inner_lr": 1e-3, "inner_steps": 5, "inner_batch": 10}
reptile_20 = {"rule": adam_b1_0, "inner_lr": 5e-4, "inner_steps": 10, "inner_batch": 20}
implicit = {"inner_lr": 0.01, "inner_steps": 16, "penalty": 1.0}
implicit |= {"adjoint": jm.Implicit("cg", iterations=5, damping=1.0)}
imaml = Experiment(20_000, 16, implicit)
plus = Experiment(
    50_000,
    16,
    {"inner_lr": 0.1, "inner_steps": 5},
    of_steps={"multi_step_until": 0.1},  # 10 of the 100 epochs
    networks=Conv4,
    outer=partial(adam, end=0.01),
)
protonet = Experiment(20_000, 1, networks=Conv4, train_ways=60, queries=5)
protonet = replace(protonet, test_queries=15)
EXPERIMENTS: dict[tuple[str, int], Experiment] = {
    # Finn et al. 2017, appendix A.1; FOMAML and ANIL in the same setting
    ("maml", 5): maml_5,
    ("maml", 20): maml_20,
    ("fomaml", 5): maml_5,
    ("fomaml", 20): maml_20,
    ("anil", 5): maml_5,
    ("anil", 20): maml_20,
    # Li et al. 2017, section 4.2
    ("meta_sgd", 5): Experiment(60_000, 32, alpha),
    ("meta_sgd", 20): Experiment(60_000, 16, alpha),
    # Nichol et al. 2018, table 5
    ("reptile", 5): Experiment(
        100_000,
        5,
        reptile_5,
        {"inner_steps": 50, "inner_batch": 5},
        shots=10,
        outer=linear_sgd,
    ),
    ("reptile", 20): Experiment(
        200_000,
        5,
        reptile_20,
        {"inner_steps": 50, "inner_batch": 10},
        shots=10,
        outer=linear_sgd,
    ),
    # Rajeswaran et al. 2019 and its code: 20,000 meta-steps of 16 tasks
    ("imaml", 5): imaml,
    ("imaml", 20): imaml,
    # Antoniou et al. 2019: 100 epochs of 500, cosine to 1e-5
    ("maml_plus_plus", 5): plus,
    ("maml_plus_plus", 20): replace(plus, tasks=8),
    # Snell et al. 2017, section 3.1: 60-way episodes with 5 queries
    ("protonet", 5): protonet,
    ("protonet", 20): protonet,
}
LEARNERS = tuple(dict.fromkeys(name for name, _ in EXPERIMENTS))


@dataclass
class Config:
    """One table."""

    root: Path | None = Path("../shared/data/omniglot")
    """Folder of Omniglot; None = printed letters."""
    learners: tuple[str, ...] = LEARNERS
    ways: int = 5
    seeds: tuple[int, ...] = (0,)
    fraction: float = 0.1  # of the paper's meta-steps
    width: int = 64
    test_tasks: int = 1000

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; three steps of Reptile."""
        return cls(None, ("reptile",), fraction=3e-5, width=4, test_tasks=4)


def pair(name: str, e: Experiment, train, test, steps: int, width: int = 64):
    """The learner for training and the one for the test, for their samplers."""
    hyper = e.hyper | {k: max(1, round(v * steps)) for k, v in e.of_steps.items()}
    networks = partial(e.networks, width=width)
    learner = build(name, train, networks, **hyper)
    return learner, build(name, test, networks, **(hyper | e.test))


def outer(e: Experiment, steps: int, fraction: float) -> optax.GradientTransformation:
    """The outer optimiser of a run of so many steps."""
    if e.outer is not None:
        return e.outer(steps)
    return optax.adam(1e-3) if fraction >= 1 else adam(steps)


def samplers(e: Experiment, ways: int, data):
    """Episodes for training and test."""
    episodes = partial(jm.tasks.episodes, rotations=True)
    train = episodes(data[0], e.train_ways or ways, e.shots, e.queries)
    return train, episodes(data[1], ways, 1, e.test_queries)


def one(key: jax.Array, name: str, config: Config, data) -> dict:
    """Train and test one learner: accuracy (%), its interval, the time."""
    e = EXPERIMENTS[name, config.ways]
    steps = max(1, round(config.fraction * e.steps))
    train, test = samplers(e, config.ways, data)
    learner, tester = pair(name, e, train, test, steps, config.width)
    start = time.perf_counter()
    with jm.Log(None, steps) as log:
        state = jm.fit(
            learner,
            train,
            outer(e, steps, config.fraction),
            steps=steps,
            key=jax.random.fold_in(key, 0),
            tasks_per_step=e.tasks,
            log=log,
        )
        jax.block_until_ready(state)
    minutes = (time.perf_counter() - start) / 60
    key_test = jax.random.fold_in(key, 1)
    report = jm.evaluate(
        tester, state.params, test, num_tasks=config.test_tasks, key=key_test
    )
    return {
        "learner": name,
        "ways": config.ways,
        "steps": steps,
        "paper_steps": e.steps,
        "train minutes": minutes,
        "accuracy": 100 * report.mean["accuracy"],
        "ci95": 100 * report.ci95["accuracy"],
    }


def run(key: jax.Array, config: Config) -> dict[str, dict]:
    """Train and test every learner."""
    data = few_shot(config.root)
    return {n: one(jax.random.clone(key), n, config, data) for n in config.learners}


def row(r: dict) -> dict:
    """A line of the table."""
    theirs = published("omniglot", r["learner"])
    return {
        "learner": r["learner"],
        "seed": r["seed"],
        "fraction": f"{r['steps'] / r['paper_steps']:.4g}",
        "steps (paper)": f"{r['steps']:,} ({r['paper_steps']:,})",
        "train minutes": f"{r['train minutes']:.1f}",
        "accuracy %, 95 % interval over tasks": f"{r['accuracy']:.2f} ± {r['ci95']:.2f}",
        "published": theirs.get(f"{r['ways']}-way 1-shot", "-"),
    }


def main(config: Config) -> None:
    """Run every learner and seed; each one's numbers are kept as it ends."""
    rows = []
    for name in config.learners:
        alone = replace(config, learners=(name,))
        for seed in config.seeds:
            result = run(jax.random.key(seed), alone)[name] | {"seed": seed}
            save(f"omniglot_{config.ways}way_{name}_seed{seed}", {"result": result})
            rows.append(row(result))
            print(rows[-1], flush=True)
    table(f"Omniglot {config.ways}-way 1-shot, {device()}", rows)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
