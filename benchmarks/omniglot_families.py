"""Omniglot, 5 and 20 ways, 1 and 5 shots: the metric, solver and amortized families.

Trained on the 1,200 characters of the Vinyals train and validation lists, tested on 1,000
tasks of the 423 of the test list; rotations by 90 degrees are classes of their own.

    python benchmarks/omniglot_families.py --root ../shared/data/omniglot
    python benchmarks/omniglot_families.py --steps 60000 --seeds 0 1 2     # no short cut

Learners whose parameters do not depend on the ways are trained once for each number of
shots, in the ways given at `EXPERIMENTS`, SNAIL once for each column. Adam, 1e-3, falling
to zero along a cosine. Conv4-64 with max-pooling, as most of the papers have it, SNAIL's
with a dense layer and more tasks a step: it has to learn to compare. MANN, which reads
pixels, is trained by `mann.py`.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
import tyro
from omniglot import load, trainval
from report import device, save, table

import jaxmeta as jm

COLUMNS = ((5, 1), (5, 5), (20, 1), (20, 5))


@dataclass(frozen=True)
class Experiment:
    """One row: a learner, how its tasks are drawn, what its paper has."""

    make: Any  # ways -> learner
    published: tuple[str, str, str, str]
    train_ways: int | None = 20  # None: those of the column, trained for each
    queries: int = 5
    tasks: int = 1  # of 5 ways a step, where it is trained for each; fewer of 20
    learns: bool = True


def encoder() -> jm.Model:
    """Conv4-64, 64 features of an image."""
    return jm.models.conv4(None)


def dense() -> jm.Model:
    """Conv4-64 and a dense layer of 64: with it SNAIL leaves chance sooner."""
    return jm.models.conv4(64)


def relation(ways: int) -> jm.MetaLearner:
    """Maps of 7 x 7, after two of the four poolings."""
    maps = jm.models.conv4(None, pools=2, grid=True)
    return jm.relation(maps, jm.models.relation_module(), ways=ways)


def single(make, model=encoder, **arguments):
    """ways -> a learner of one encoder."""
    return lambda ways, **more: make(model(), ways=ways, **arguments, **more)


EXPERIMENTS: dict[str, Experiment] = {
    "pixels": Experiment(jm.nearest_neighbour, ("-", "-", "-", "-"), learns=False),
    "protonet": Experiment(
        single(jm.protonet), ("98.8", "99.7", "96.0", "98.9"), train_ways=60
    ),
    "matching": Experiment(single(jm.matching), ("98.1", "98.9", "93.8", "98.5")),
    "relation": Experiment(
        relation,
        ("99.6 ± 0.2", "99.8 ± 0.1", "97.6 ± 0.2 (mem)", "99.1 ± 0.1 (mem)"),
        train_ways=5,
        queries=10,
    ),
    "r2d2": Experiment(
        single(jm.r2d2), ("98.6 (mem)", "99.7 (mem)", "94.7 (mem)", "98.9 (mem)")
    ),
    "metaoptnet": Experiment(
        single(jm.metaoptnet), ("-", "-", "-", "-"), train_ways=5, tasks=4
    ),
    "versa": Experiment(
        single(jm.versa),
        ("99.70 (mem)", "99.75 (mem)", "97.66 (mem)", "98.77 (mem)"),
    ),
    "snail": Experiment(
        single(jm.snail, dense),
        ("99.07 ± 0.16", "99.78 ± 0.09", "97.64 ± 0.30", "99.36 ± 0.18"),
        train_ways=None,
        queries=1,
        tasks=16,
    ),
}


@dataclass
class Config:
    """One table."""

    root: Path = Path("../shared/data/omniglot")
    learners: tuple[str, ...] = tuple(EXPERIMENTS)
    columns: tuple[tuple[int, int], ...] = COLUMNS
    """Ways and shots."""
    seeds: tuple[int, ...] = (0,)
    steps: int = 4000
    test_tasks: int = 1000
    test_queries: int = 5


def build(name: str, ways: int, shots: int) -> jm.MetaLearner:
    """The learner of one column."""
    longest = {"snail": {"length": ways * shots}}.get(name, {})
    return EXPERIMENTS[name].make(ways, **longest)


def train(key: jax.Array, name: str, ways: int, shots: int, config: Config, data):
    """Parameters, and the seconds that they took."""
    e, start = EXPERIMENTS[name], time.perf_counter()
    if not e.learns:
        return (), 0.0
    tasks = e.tasks if e.train_ways else e.tasks * 5 // ways
    ways = e.train_ways or ways
    with jm.Log(None, config.steps) as log:
        state = jm.fit(
            build(name, ways, shots),
            jm.tasks.episodes(data, ways, shots, e.queries, rotations=True),
            optax.adam(optax.cosine_decay_schedule(1e-3, config.steps)),
            steps=config.steps,
            key=jax.random.fold_in(key, 0),
            tasks_per_step=tasks,
            log=log,
        )
    return jax.block_until_ready(state.params), time.perf_counter() - start


def run(key: jax.Array, name: str, config: Config, data) -> list[dict]:
    """All columns of one learner: accuracy (%), interval, minutes of training."""
    train_set, test_set = data
    e, trained, results = EXPERIMENTS[name], {}, []
    for ways, shots in config.columns:
        which = (e.train_ways or ways, shots)
        if which not in trained:
            trained[which] = train(key, name, ways, shots, config, train_set)
        params, seconds = trained[which]
        sampler = partial(jm.tasks.episodes, test_set, ways, shots, rotations=True)
        report = jm.evaluate(
            build(name, ways, shots),
            params,
            sampler(config.test_queries),
            num_tasks=config.test_tasks,
            key=jax.random.fold_in(key, 1),
        )
        results.append(
            {
                "ways": ways,
                "shots": shots,
                "accuracy": 100 * report.mean["accuracy"],
                "ci95": 100 * report.ci95["accuracy"],
                "minutes": seconds / 60,
                "steps": config.steps if e.learns else 0,
            }
        )
        print(name, results[-1], flush=True)
    return results


def main(config: Config) -> None:
    """Run every learner and seed; each one's numbers are kept as it ends."""
    data = trainval(config.root), load(config.root, "vinyals_test")
    rows = []
    for name in config.learners:
        published = EXPERIMENTS[name].published
        for seed in config.seeds:
            results = run(jax.random.key(seed), name, config, data)
            save(f"omniglot_families_{name}_seed{seed}", {"results": results})
            row = {"learner": name, "seed": seed}
            for column, r in zip(config.columns, results, strict=True):
                paper = dict(zip(COLUMNS, published, strict=True)).get(column, "-")
                title = f"{column[0]}-way {column[1]}-shot (paper)"
                row[title] = f"{r['accuracy']:.2f} ± {r['ci95']:.2f} ({paper})"
            minutes = dict.fromkeys(f"{r['minutes']:.1f}" for r in results)
            row["meta-steps"] = results[0]["steps"]
            rows.append(row | {"minutes a training": ", ".join(minutes)})
    table(f"Omniglot, Vinyals split, {device()}", rows)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
