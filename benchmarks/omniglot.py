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
import numpy as np
import optax
import tyro
from report import device, save, table

import jaxmeta as jm


@dataclass(frozen=True)
class Experiment:
    """One row: how a learner is trained and tested."""

    make: Callable[..., jm.MetaLearner]
    steps: int  # meta-steps in the paper
    tasks: int  # of a meta-step
    train: dict[str, Any]  # arguments of the learner
    test: dict[str, Any] = field(default_factory=dict)  # what is different in the test
    strided: bool = True  # conv4 with strides, or with max-pooling
    outputs: bool = True  # whether the model has a head
    train_ways: int | None = None
    shots: int = 1  # support examples of a training task
    queries: int = 1
    test_queries: int = 1
    rate: float = 1e-3
    outer: Callable = optax.adam
    published: str = ""


adam_b1_0 = partial(optax.adam, b1=0.0)
maml_5 = {"inner_lr": 0.4, "inner_steps": 1}
maml_20 = {"inner_lr": 0.1, "inner_steps": 5}
alpha = {"inner_lr": (0.005, 0.1), "inner_steps": 1}
reptile = {"rule": adam_b1_0, "inner_steps": 50}
implicit = {"inner_lr": 0.01, "inner_steps": 16, "penalty": 1.0}
implicit |= {"adjoint": jm.Implicit("cg", iterations=5, damping=1.0)}
plus = {"inner_lr": 0.1, "inner_steps": 5}
protonet = Experiment(
    jm.protonet,
    20_000,
    1,
    {},
    strided=False,
    outputs=False,
    train_ways=60,
    queries=5,
    test_queries=15,
    published="98.8",
)
EXPERIMENTS: dict[tuple[str, int], Experiment] = {
    # Finn et al. 2017, appendix A.1; FOMAML and ANIL in the same setting
    ("maml", 5): Experiment(
        jm.maml, 60_000, 32, maml_5, {"inner_steps": 3}, published="98.7 ± 0.4"
    ),
    ("maml", 20): Experiment(jm.maml, 60_000, 16, maml_20, published="95.8 ± 0.3"),
    ("fomaml", 5): Experiment(
        jm.fomaml, 60_000, 32, maml_5, {"inner_steps": 3}, published="98.3 ± 0.5"
    ),
    ("fomaml", 20): Experiment(jm.fomaml, 60_000, 16, maml_20, published="89.4 ± 0.5"),
    ("anil", 5): Experiment(jm.anil, 60_000, 32, maml_5, {"inner_steps": 3}),
    ("anil", 20): Experiment(jm.anil, 60_000, 16, maml_20, published="96.2 ± 0.5 (sd)"),
    # Li et al. 2017, section 4.2
    ("meta_sgd", 5): Experiment(
        jm.meta_sgd, 60_000, 32, alpha, published="99.53 ± 0.26"
    ),
    ("meta_sgd", 20): Experiment(
        jm.meta_sgd, 60_000, 16, alpha, published="95.93 (mem)"
    ),
    # Nichol et al. 2018, table 5; the outer rate of plain SGD falls from 1 to 0
    ("reptile", 5): Experiment(
        jm.reptile,
        100_000,
        5,
        {"rule": adam_b1_0, "inner_lr": 1e-3, "inner_steps": 5, "inner_batch": 10},
        reptile | {"inner_lr": 1e-3, "inner_batch": 5},
        shots=10,
        rate=1.0,
        outer=optax.sgd,
        published="97.68 ± 0.04",
    ),
    ("reptile", 20): Experiment(
        jm.reptile,
        200_000,
        5,
        {"rule": adam_b1_0, "inner_lr": 5e-4, "inner_steps": 10, "inner_batch": 20},
        reptile | {"inner_lr": 5e-4, "inner_batch": 10},
        shots=10,
        rate=1.0,
        outer=optax.sgd,
        published="89.43 ± 0.14",
    ),
    # Rajeswaran et al. 2019 and its code: 20,000 meta-steps of 16 tasks
    ("imaml", 5): Experiment(jm.imaml, 20_000, 16, implicit, published="99.16 (GD)"),
    ("imaml", 20): Experiment(jm.imaml, 20_000, 16, implicit, published="94.46 (GD)"),
    # Antoniou et al. 2019: 100 epochs of 500, cosine to 1e-5
    ("maml_plus_plus", 5): Experiment(
        jm.maml_plus_plus, 50_000, 16, plus, strided=False, published="99.47"
    ),
    ("maml_plus_plus", 20): Experiment(
        jm.maml_plus_plus, 50_000, 8, plus, strided=False, published="97.65 (mem)"
    ),
    # Snell et al. 2017, section 3.1: 60-way episodes with 5 queries
    ("protonet", 5): protonet,
    ("protonet", 20): replace(protonet, published="96.0"),
}
LEARNERS = tuple(dict.fromkeys(name for name, _ in EXPERIMENTS))


@dataclass
class Config:
    """One table."""

    root: Path = Path("../shared/data/omniglot")
    learners: tuple[str, ...] = LEARNERS
    ways: int = 5
    seeds: tuple[int, ...] = (0,)
    fraction: float = 0.1  # of the paper's meta-steps
    test_tasks: int = 1000


def learners(e: Experiment, ways: int, steps: int):
    """The learner for training and the one for the test."""
    model = jm.models.conv4(ways if e.outputs else None, strided=e.strided)
    train = dict(e.train)
    if e.make is jm.maml_plus_plus:  # 10 of the 100 epochs
        train["multi_step_until"] = max(1, steps // 10)
    if e.outputs:
        return e.make(model, **train), e.make(model, **(train | e.test))
    return e.make(model, ways=e.train_ways or ways), e.make(model, ways=ways)


def rate(e: Experiment, steps: int, fraction: float):
    """The outer rate: a number or a schedule."""
    if e.outer is optax.sgd:
        return optax.linear_schedule(e.rate, 0.0, steps)
    if e.make is jm.maml_plus_plus:
        return optax.cosine_decay_schedule(e.rate, steps, alpha=0.01)
    return e.rate if fraction >= 1 else optax.cosine_decay_schedule(e.rate, steps)


def run(key: jax.Array, name: str, config: Config, data=None) -> dict:
    """Train and test one learner; returns accuracy (%), its interval, and the times."""
    train, test = data or (trainval(config.root), load(config.root, "vinyals_test"))
    e = EXPERIMENTS[name, config.ways]
    steps = max(1, round(config.fraction * e.steps))
    learner, tester = learners(e, config.ways, steps)
    ways = e.train_ways or config.ways
    start = time.perf_counter()
    with jm.Log(None, steps) as log:
        state = jm.fit(
            learner,
            jm.tasks.episodes(train, ways, e.shots, e.queries, rotations=True),
            e.outer(rate(e, steps, config.fraction)),
            steps=steps,
            key=jax.random.fold_in(key, 0),
            tasks_per_step=e.tasks,
            log=log,
        )
        jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    report = jm.evaluate(
        tester,
        state.params,
        jm.tasks.episodes(test, config.ways, 1, e.test_queries, rotations=True),
        num_tasks=config.test_tasks,
        key=jax.random.fold_in(key, 1),
    )
    return {
        "learner": name,
        "ways": config.ways,
        "steps": steps,
        "paper_steps": e.steps,
        "train minutes": seconds / 60,
        "accuracy": 100 * report.mean["accuracy"],
        "ci95": 100 * report.ci95["accuracy"],
    }


def load(root: Path, split: str) -> jm.data.Dataset:
    """One split of Omniglot."""
    return jm.data.omniglot(root, split)


def trainval(root: Path) -> jm.data.Dataset:
    """The characters of the train and validation lists together."""
    train, validation = load(root, "vinyals_train"), load(root, "vinyals_validation")
    return replace(
        train,
        split="vinyals_trainval",
        images=np.concatenate([train.images, validation.images]),
        counts=np.concatenate([train.counts, validation.counts]),
        classes=train.classes + validation.classes,
        groups=train.groups + validation.groups,
    )


def main(config: Config) -> None:
    """Run every learner and seed; each one's numbers are kept as it ends."""
    rows = []
    for name in config.learners:
        for seed in config.seeds:
            result = run(jax.random.key(seed), name, config) | {"seed": seed}
            save(f"omniglot_{config.ways}way_{name}_seed{seed}", {"result": result})
            accuracy = f"{result['accuracy']:.2f} ± {result['ci95']:.2f}"
            rows.append(
                {
                    "learner": name,
                    "seed": seed,
                    "steps (paper)": f"{result['steps']:,} ({result['paper_steps']:,})",
                    "train minutes": f"{result['train minutes']:.1f}",
                    "accuracy %, 95 % interval over tasks": accuracy,
                    "published": EXPERIMENTS[name, config.ways].published or "-",
                }
            )
            print(rows[-1], flush=True)
    table(f"Omniglot {config.ways}-way 1-shot, {device()}", rows)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
