"""What eight bits a weight, and fewer weights, cost on Omniglot, 5 ways and 1 shot.

    python benchmarks/compressing.py --root ../shared/data/omniglot

Learners are trained as in `omniglot_families.py`; each compressed one is asked the same
1,000 tasks as its original, so the differences are paired.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import omniglot_families as families
import optax
import tyro
from characters import few_shot
from networks import Conv4, build
from report import device, save, table

import jaxmeta as jm


@dataclass
class Narrow(Conv4):
    """Conv4 of fewer channels."""

    width: int = 32


@dataclass
class Config:
    """One table."""

    root: Path | None = Path("../shared/data/omniglot")
    """Folder of Omniglot; None = printed letters."""
    learners: tuple[str, ...] = ("protonet", "r2d2")
    train_ways: int | None = None
    """None, and of `queries` too: as in `omniglot_families.py`."""
    queries: int | None = None
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 1000
    more_steps: int = 300
    """Of training on after pruning."""
    shares: tuple[float, ...] = (0.5, 0.8)
    test_tasks: int = 1000
    test_queries: int = 5

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; so few images that no convolution is Winograd's, long to compile."""
        few = {"train_ways": 5, "queries": 1, "test_queries": 1, "test_tasks": 4}
        short = {"seeds": (0,), "steps": 2, "more_steps": 2, "shares": (0.5,)}
        return cls(None, ("protonet",), **few, **short)


def run(key: jax.Array, config: Config) -> list[dict]:
    """A row a learner and way of compressing: of each seed the bytes, the accuracy (%)
    and by how much it fell, with its 95 % interval."""
    data = few_shot(config.root)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in config.learners:
        for seed in config.seeds:
            own = jax.random.fold_in(key, seed)
            for how, values in compressed(own, name, config, data).items():
                row = found.setdefault((name, how), {"learner": name, "how": how})
                for measured, value in values.items():
                    row.setdefault(measured, []).append(value)
    return list(found.values())


def compressed(key, name: str, config: Config, data) -> dict[str, dict[str, float]]:
    """How -> what it has of one trained learner."""
    key_train, key_on, key_test = jax.random.split(key, 3)
    e = families.EXPERIMENTS[name]
    ways, queries = config.train_ways or e.train_ways or 5, config.queries or e.queries
    tasks = jm.tasks.episodes(data[0], ways, 1, queries, rotations=True)
    teach = build(e.learner, tasks, Narrow)
    sampler = jm.tasks.episodes(data[1], 5, 1, config.test_queries, rotations=True)
    learner = build(e.learner, sampler, Narrow)

    def train(key, learner, rate: float, steps: int, *more):
        falling = optax.adam(optax.cosine_decay_schedule(rate, steps))
        how = {"steps": steps, "tasks_per_step": e.tasks, "key": jax.random.clone(key)}
        return jm.fit(learner, tasks, optax.chain(falling, *more), **how).params

    def train_on(params):
        again = teach._replace(init=lambda key: params)
        return train(key_on, again, 3e-4, config.more_steps, jm.zeros_stay())

    def right(params) -> np.ndarray:
        how = {"num_tasks": config.test_tasks, "key": jax.random.clone(key_test)}
        report = jm.evaluate(learner, params, sampler, **how)
        return 100 * np.asarray(report.per_task["accuracy"])

    trained = train(key_train, teach, 1e-3, config.steps)
    before, rows = right(trained), {}
    for how, params, kept in variants(trained, train_on, config.shares):
        after = right(params)
        fell = before - after
        error = 1.96 * fell.std(ddof=1) / len(fell) ** 0.5
        row = {"bytes": kept, "accuracy": after.mean(), "fell": fell.mean()}
        rows[how] = row | {"ci95": error}
        print(name, how, rows[how], flush=True)
    return rows


def variants(params, train_on: Callable[[Any], Any], shares: tuple[float, ...]):
    """(how, parameters, bytes), of pruned ones without what says where the zeros are."""
    yield "as learned", params, size(params)
    small = jm.to_int8(params)
    yield "eight bits", jm.from_int8(small), size(small)
    for share in shares:
        how, thin = f"{share:.0%} pruned", jm.prune(params, share)
        kept = size(params) - sum(
            4 * int(np.sum(a == 0)) for a in jax.tree.leaves(thin) if a.ndim > 1
        )
        yield how, thin, kept
        again = train_on(thin)
        yield f"{how}, trained on", again, kept
        small, gone = jm.to_int8(again), (size(params) - kept) // 4
        how = f"{how}, trained on, eight bits"
        yield how, jm.from_int8(small), size(small) - gone


def size(params) -> int:
    """In bytes."""
    return sum(a.nbytes for a in jax.tree.leaves(params))


def spelled(results: dict) -> list[dict]:
    """Lines of the table: means over the seeds, points lost with the interval of the tasks
    and the seed that lost most."""
    lines = []
    for row in results["rows"]:
        lost, number = np.mean(row["fell"]), len(row["fell"])
        error = np.sqrt(np.sum(np.square(row["ci95"]))) / number
        apart = "-"
        if row["how"] != "as learned":
            most = round(max(row["fell"]), 2) + 0.0  # no -0.00
            apart = f"{lost:.2f} ± {error:.2f} (at most {most:.2f})"
        lines.append(
            {
                "learner": row["learner"],
                "weights": row["how"],
                "kB": f"{np.mean(row['bytes']) / 1000:.1f}",
                "accuracy, %": f"{np.mean(row['accuracy']):.2f}",
                "points lost": apart,
            }
        )
    return lines


def main(config: Config) -> None:
    """Train, compress, test, print the table, keep the numbers."""
    results = {"rows": run(jax.random.key(0), config)}
    table(f"Omniglot, 5 ways, 1 shot, {device()}", spelled(results))
    print(save("compressing", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
