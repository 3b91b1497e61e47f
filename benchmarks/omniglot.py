"""Omniglot 5-way 1-shot, MAML and ProtoNet, in 15 minutes each on two CPU cores.

Trained on the 1,200 characters of the Vinyals train and validation lists, tested on the
423 of the test list; rotations by 90 degrees are classes of their own in both. Batch norm
uses the statistics of the batch at hand (transductive), as published.

    python benchmarks/omniglot.py --root ../shared/data/omniglot

Protocols. MAML (Finn et al. 2017): stride-2 Conv4, meta-batch 32, 1 query a class, one
inner step of 0.4 in training and three in the test, Adam 1e-3. ProtoNet (Snell et al.
2017): max-pool Conv4, 60-way 1-shot episodes with 5 queries, Adam 1e-3; 15 queries in the
test. Departures, for the short budget: fewer steps (60,000 published for MAML), and a
cosine decay of the learning rate in place of a constant or halved one.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from report import device, save, table

import jaxmeta as jm

PUBLISHED = {"maml": "98.7 ± 0.4", "protonet": "98.8"}


@dataclass
class Config:
    """One table; the defaults are the published rows of README.md."""

    root: Path = Path("../shared/data/omniglot")
    learners: tuple[str, ...] = ("maml", "protonet")
    seeds: tuple[int, ...] = (0,)
    maml_steps: int = 9500
    protonet_steps: int = 2600
    learning_rate: float = 1e-3
    train_ways: int = 60  # of ProtoNet
    test_tasks: int = 1000


def experiment(name: str, config: Config):
    """(training learner, test learner, ways, queries in training and test, batch)."""
    if name == "maml":
        model = jm.models.conv4(5, strided=True)
        test = jm.maml(model, inner_lr=0.4, inner_steps=3)
        return jm.maml(model, inner_lr=0.4), test, 5, 1, 1, 32
    model = jm.models.conv4(None)
    ways = config.train_ways
    return jm.protonet(model, ways=ways), jm.protonet(model), ways, 5, 15, 1


def run(key: jax.Array, name: str, config: Config, data=None) -> dict:
    """Train and test one learner; returns accuracy (%), its interval, and the times."""
    train, test = data or (trainval(config.root), load(config.root, "vinyals_test"))
    learner, tester, ways, queries, test_queries, batch = experiment(name, config)
    steps = config.maml_steps if name == "maml" else config.protonet_steps
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    start = time.perf_counter()
    with jm.Log(None, steps) as log:
        state = jm.fit(
            learner,
            jm.tasks.episodes(train, ways, 1, queries, rotations=True),
            optax.adam(schedule),
            steps=steps,
            key=jax.random.fold_in(key, 0),
            tasks_per_step=batch,
            log=log,
        )
        jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    report = jm.evaluate(
        tester,
        state.params,
        jm.tasks.episodes(test, 5, 1, test_queries, rotations=True),
        num_tasks=config.test_tasks,
        key=jax.random.fold_in(key, 1),
    )
    return {
        "learner": name,
        "steps": steps,
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
    """Run every learner and seed, print the table, keep the numbers."""
    rows, results = [], []
    for name in config.learners:
        for seed in config.seeds:
            result = run(jax.random.key(seed), name, config) | {"seed": seed}
            results.append(result)
            rows.append(
                {
                    "learner": name,
                    "seed": seed,
                    "steps": result["steps"],
                    "train minutes": f"{result['train minutes']:.1f}",
                    "accuracy %, 95 % interval over tasks": (
                        f"{result['accuracy']:.2f} ± {result['ci95']:.2f}"
                    ),
                    "published": PUBLISHED[name],
                }
            )
    save("omniglot_" + "_".join(config.learners), {"results": results})
    table(f"Omniglot 5-way 1-shot, {config.test_tasks} tasks, {device()}", rows)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
