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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import optax
import tyro
from characters import few_shot
from networks import Conv4, Dense, build
from published import published
from report import device, save, table

import jaxmeta as jm

COLUMNS = ((5, 1), (5, 5), (20, 1), (20, 5))


@dataclass(frozen=True)
class Experiment:
    """One row: a learner by name, its networks, how its tasks are drawn."""

    learner: str
    networks: type[Conv4] = Conv4
    train_ways: int | None = 20  # None: those of the column, trained for each
    queries: int = 5
    tasks: int = 1  # of 5 ways a step, where it is trained for each; fewer of 20
    learns: bool = True


EXPERIMENTS: dict[str, Experiment] = {
    "pixels": Experiment("nearest_neighbour", learns=False),
    "protonet": Experiment("protonet", train_ways=60),
    "matching": Experiment("matching"),
    "relation": Experiment("relation", train_ways=5, queries=10),
    "r2d2": Experiment("r2d2"),
    "metaoptnet": Experiment("metaoptnet", train_ways=5, tasks=4),
    "versa": Experiment("versa"),
    "snail": Experiment("snail", Dense, train_ways=None, queries=1, tasks=16),
}


@dataclass
class Config:
    """One table."""

    root: Path | None = Path("../shared/data/omniglot")
    """Folder of Omniglot; None = printed letters."""
    learners: tuple[str, ...] = tuple(EXPERIMENTS)
    columns: tuple[tuple[int, int], ...] = COLUMNS
    """Ways and shots."""
    seeds: tuple[int, ...] = (0,)
    steps: int = 4000
    width: int = 64
    test_tasks: int = 1000
    test_queries: int = 5

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        some = ("pixels", "versa")
        return cls(None, some, columns=((5, 1),), steps=2, width=4, test_tasks=4)


def train(key: jax.Array, e: Experiment, ways: int, shots: int, config: Config, data):
    """Parameters, and the seconds that they took."""
    start = time.perf_counter()
    if not e.learns:
        return (), 0.0
    tasks = e.tasks if e.train_ways else e.tasks * 5 // ways
    ways = e.train_ways or ways
    sampler = jm.tasks.episodes(data, ways, shots, e.queries, rotations=True)
    networks = partial(e.networks, width=config.width)
    with jm.Log(None, config.steps) as log:
        state = jm.fit(
            build(e.learner, sampler, networks),
            sampler,
            optax.adam(optax.cosine_decay_schedule(1e-3, config.steps)),
            steps=config.steps,
            key=jax.random.fold_in(key, 0),
            tasks_per_step=tasks,
            log=log,
        )
    return jax.block_until_ready(state.params), time.perf_counter() - start


def columns(key: jax.Array, e: Experiment, config: Config, data) -> list[dict]:
    """All columns of one learner: accuracy (%), interval, minutes of training."""
    trained, results = {}, []
    episodes = partial(jm.tasks.episodes, data[1], rotations=True)
    networks = partial(e.networks, width=config.width)
    for ways, shots in config.columns:
        which = (e.train_ways or ways, shots)
        if which not in trained:
            trained[which] = train(key, e, ways, shots, config, data[0])
        params, seconds = trained[which]
        sampler = episodes(ways, shots, config.test_queries)
        report = jm.evaluate(
            build(e.learner, sampler, networks),
            params,
            sampler,
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
        print(e.learner, results[-1], flush=True)
    return results


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Every learner's columns."""
    data, again = few_shot(config.root), lambda: jax.random.clone(key)
    return {n: columns(again(), EXPERIMENTS[n], config, data) for n in config.learners}


def rows(name: str, seed: int, results: list[dict]) -> list[dict]:
    """Lines of the table: ours, and the published if there is anything."""
    columns = [f"{r['ways']}-way {r['shots']}-shot" for r in results]
    cells = [f"{r['accuracy']:.2f} ± {r['ci95']:.2f}" for r in results]
    minutes = dict.fromkeys(f"{r['minutes']:.1f}" for r in results)
    line = {"learner": f"{name}, ours", "seed": seed}
    line |= dict(zip(columns, cells, strict=True))
    line["meta-steps"] = f"{results[0]['steps']:,}"
    line["minutes a training"] = ", ".join(minutes)
    found = published("omniglot", name)
    theirs = dict.fromkeys(line, "-") | {"learner": f"{name}, published"}
    theirs |= {c: found[c] for c in columns if c in found}
    return [line, theirs] if found else [line]


def main(config: Config) -> None:
    """Run every learner and seed; each one's numbers are kept as it ends."""
    lines = []
    for name in config.learners:
        alone = replace(config, learners=(name,))
        for seed in config.seeds:
            results = run(jax.random.key(seed), alone)[name]
            save(f"omniglot_families_{name}_seed{seed}", {"results": results})
            lines += rows(name, seed, results)
    table(f"Omniglot, Vinyals split, {device()}", lines)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
