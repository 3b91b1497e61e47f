"""Four simulated shifts of SKADA-Bench in the plane: accuracy on the target.

    python benchmarks/shifts.py

Points as skada's `make_shifted_datasets` draws them (two classes), 5 seeds, each with 5
divisions of 80 % to adapt to and 20 % to test on. The classifier of all rows is a network
of two hidden layers, trained to the last step.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import jax
import numpy as np
import optax
import tyro
from across import SOFTMAX, Domain, Row, chosen, errors, said, stacked, tasks_of
from published import published
from report import device, save, table

from jaxmeta.learners.registry import Facts

PLAIN = {"rule": optax.sgd}
AS_IT_IS = PLAIN | {"standardise": "none"}
COVARIANCE = AS_IT_IS | SOFTMAX | {"regularization": 1e-6}
ROWS = (
    Row("source only", "source_only", PLAIN),
    Row("target only", "source_only", PLAIN, on="in-domain"),
    Row("CORAL", "coral", COVARIANCE | {"mean": "source"}, inputs=True),
    Row("CORAL, means aligned", "coral", COVARIANCE | {"mean": "target"}, inputs=True),
    Row("entropic OT", "optimal_transport", AS_IT_IS, inputs=True),
    Row("class-reg. OT", "optimal_transport",
        AS_IT_IS | {"class_penalty": "group_lasso"}, inputs=True),
)  # fmt: skip


@dataclass
class Config:
    """How many points, seeds and divisions; how the classifier is trained."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    divisions: int = 5
    share: float = 0.2  # of the target, for the test
    points: int = 100  # of a cluster; a domain has 8 times as many
    subspace_points: int = 300
    width: int = 32
    inner_steps: int = 1000
    inner_lr: float = 0.3
    rows: tuple[str, ...] | None = None  # titles; None = all

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; as many points in each shift: one program a row."""
        few = {"points": 3, "subspace_points": 6, "width": 4, "inner_steps": 2}
        return cls((0,), 2, **few, rows=("source only", "target only"))


def run(key: jax.Array, config: Config) -> dict:
    """Rows: the errors of each shift, [seeds * divisions]."""
    tasks = {shift: divided(shift, config) for shift in SHIFTS}
    training = {"inner_steps": config.inner_steps, "inner_lr": config.inner_lr}
    rows = []
    for row in chosen(ROWS, config.rows):
        learner = row.make(Facts(ways=2, x_dims=2), config.width, training)
        found = {
            shift: errors(
                learner, stacked([t[row.on] for t in own]), jax.random.clone(key)
            )
            for shift, own in tasks.items()
        }
        rows.append({"learner": row.title, "errors": found})
    return {"rows": rows}


def divided(shift: str, config: Config) -> list[dict]:
    """The tasks of all seeds and divisions, inputs standardised by the source."""
    found = []
    for seed in config.seeds:
        source, target = SHIFTS[shift](np.random.RandomState(seed), config)
        mean, std = source.x.mean(0), source.x.std(0)
        source, target = (d._replace(x=(d.x - mean) / std) for d in (source, target))
        for division in range(config.divisions):
            order = np.random.default_rng(division).permutation(len(target.y))
            test = max(1, round(config.share * len(order)))
            parts = order[test:], order[:test]
            found.append(
                tasks_of(source, *(Domain(*(a[p] for a in target)) for p in parts))
            )
    return found


def clusters(random, n: int) -> Domain:
    """A disc, 4 n points of class 0, and four clusters of n points around it."""
    angle = random.rand(4 * n, 1) * 2 * np.pi
    radius = np.sqrt(random.rand(4 * n, 1))
    disc = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    parts = [disc @ [[2, -0.5], [-0.5, 2]] + [2, 2]]
    for hundredths, centre in (
        ([[15, 0], [0, 30]], [-1.5, 3]),
        ([[20, -10], [-10, 20]], [-0.5, 1]),
        ([[17, -5], [-5, 17]], [1, -0.4]),
        ([[30, 0], [0, 15]], [3, -1]),
    ):
        parts.append(random.randn(n, 2) @ np.array(hundredths) / 100 + centre)
    return Domain(np.concatenate(parts), np.arange(2).repeat(4 * n))


def mirrored(random, n: int) -> Domain:
    """2 n points of class 0, and two clusters of n points of class 1."""
    parts = [
        random.randn(m, 2) * spread + centre
        for m, spread, centre in (
            (2 * n, 0.5, [-1, 1]),
            (n, 0.1, [1.5, 0.5]),
            (n, 0.2, [-0.5, -1.5]),
        )
    ]
    return Domain(np.concatenate(parts), np.arange(2).repeat(2 * n))


def noisy(random, noise: float, *domains: Domain) -> list[Domain]:
    """Each with Gaussian noise."""
    return [
        d._replace(x=d.x + random.normal(scale=noise, size=d.x.shape)) for d in domains
    ]


def covariate(random, config: Config) -> list[Domain]:
    """p(x) of the target is near one place."""
    n = config.points
    source, many = clusters(random, n), clusters(random, 100 * n)
    weights = np.exp(-2 * ((many.x - np.array([-0.4, 3])) ** 2).sum(1))
    kept = random.choice(len(weights), 8 * n, replace=False, p=weights / weights.sum())
    return noisy(random, 0.6, source, Domain(*(a[kept] for a in many)))


def target(random, config: Config) -> list[Domain]:
    """Nine of ten of the target are of one class."""
    n = config.points
    source, many = clusters(random, n), clusters(random, 3 * n)
    first, half = int(8 * n * 0.9), 12 * n
    most = random.choice(half, first, replace=False)
    few = random.choice(half, 8 * n - first, replace=False) + half
    kept = np.concatenate([most, few])
    return noisy(random, 0.8, source, Domain(*(a[kept] for a in many)))


def conditional(random, config: Config) -> list[Domain]:
    """The target is smaller, and moved."""
    source, there = clusters(random, config.points), clusters(random, config.points)
    return noisy(random, 0.8, source, there._replace(x=there.x * 0.7 + 1))


def subspace(random, config: Config) -> list[Domain]:
    """The target is the mirror image; along one line nothing changes."""
    n = config.subspace_points
    clusters(random, n)  # skada draws it, and throws it away
    source, there = mirrored(random, n), mirrored(random, n)
    return noisy(random, 0.4, source, there._replace(x=-there.x))


SHIFTS: dict[str, Callable[..., list[Domain]]] = {
    "covariate": covariate,
    "target": target,
    "conditional": conditional,
    "subspace": subspace,
}


def spelled(results: dict) -> list[dict]:
    """Lines of the table, each with what is published."""
    lines = []
    for row in results["rows"]:
        line, theirs = {"learner": row["learner"]}, published("shifts", row["learner"])
        for shift, found in row["errors"].items():
            line |= {shift: said(1 - np.asarray(found))}
            line |= {f"{shift}, published": theirs.get(shift, "-")}
        lines.append(line)
    return lines


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    table(f"Four shifts, accuracy on the target, {device()}", spelled(results))
    print(save("shifts", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
