"""Ten printed letters, the first ten times as often as the last: weights by Meta-Weight-Net.

    python benchmarks/long_tail.py

The weight of an example is a small network of its loss, learned on a few balanced examples
(Shu et al. 2019, arXiv 1902.07379, on long-tailed CIFAR-10); beside it weights of one, and
those of the class's frequency.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from report import device, save, table

import jaxmeta as jm
from jaxmeta.training.evaluate import interval

NET = jm.models.mlp(1, 1, (100,))  # the paper's
FONTS = 21  # of most letters


@dataclass
class Config:
    """The letters of a draw, the network and how it is trained."""

    classes: int = 10
    most: int = 10  # examples of the first class; of the last, a tenth
    validation: int = 3  # examples a class, balanced
    test: int = 8
    width: int = 100
    penalties: tuple[float, ...] = (0.0, 0.003, 0.01, 0.03, 0.1)
    steps: int = 2000
    batch_size: int = 100
    inner_lr: float = 0.1
    outer_lr: float = 3e-3
    draws: int = 20
    rows: tuple[str, ...] | None = None  # weights; None = all

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        few = {"width": 4, "steps": 2, "batch_size": 6, "draws": 2}
        rows = "one", "Meta-Weight-Net"
        return cls(3, penalties=(0.03,), rows=rows, **few)


class Sets(NamedTuple):
    """Examples of one draw."""

    train: jm.Batch
    validation: jm.Batch
    test: jm.Batch


def run(key: jax.Array, config: Config) -> dict:
    """Rows: penalty, weights, accuracy on the test set, [draws]."""
    body = jm.models.mlp(28 * 28, config.classes, (config.width,))
    draws = [drawn(seed, config) for seed in range(config.draws)]
    keys = jax.random.split(key, config.draws)
    rows = []
    for penalty in config.penalties:
        for name, (weights, more) in weightings(config).items():
            if config.rows is not None and name not in config.rows:
                continue
            outer = problem(body, weights, penalty, config)
            found = [
                accuracy(body, outer, joined(sets) if more else sets, k, config)
                for sets, k in zip(draws, jax.random.clone(keys), strict=True)
            ]
            rows.append({"weights": name, "penalty": penalty, "accuracy": found})
    return {"rows": rows}


def counts(config: Config) -> np.ndarray:
    """[classes] training examples: from `most` down to a tenth, geometrically."""
    falling = np.geomspace(config.most, config.most / 10, config.classes)
    return np.maximum(1, falling.round()).astype(int)


def drawn(seed: int, config: Config) -> Sets:
    """Some letters, and for each validation, test and training examples."""
    letters, random = jm.data.glyphs(), np.random.default_rng(seed)
    ends = np.cumsum(letters.counts)
    all_fonts = np.flatnonzero(np.asarray(letters.counts) >= FONTS)
    parts = [[], [], []]
    for label, c in enumerate(random.permutation(all_fonts)[: config.classes]):
        order = ends[c] - 1 - random.permutation(letters.counts[c])
        sizes = config.validation, config.test, counts(config)[label]
        for part, rows in zip(
            parts, np.split(order, np.cumsum(sizes))[:3], strict=True
        ):
            part.append((rows, np.full(len(rows), label)))
    batch = lambda part: _batch(
        letters.x, *map(np.concatenate, zip(*part, strict=True))
    )
    validation, test, train = map(batch, parts)
    return Sets(train, validation, test)


def _batch(images: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> jm.Batch:
    x = images[rows].reshape(len(rows), -1).astype(np.float32) / 255
    return jm.Batch(x, labels.astype(np.int32))


def joined(sets: Sets) -> Sets:
    """The same, trained on the validation examples, too."""
    train, more = sets.train, sets.validation
    x, y = np.concatenate([train.x, more.x]), np.concatenate([train.y, more.y])
    return sets._replace(train=jm.Batch(x, y))


Weights = Callable[..., jax.Array]  # (phi, losses, labels) -> [n]


def weightings(config: Config) -> dict[str, tuple[Weights, bool]]:
    """Name -> weights of a minibatch, and whether to train on the validation set, too."""
    n = counts(config)
    rare = jnp.asarray(n.sum() / (len(n) * n), jnp.float32)  # 1 in the mean

    def learned(phi, losses, y):
        v = jax.nn.sigmoid(NET.apply(phi, losses[:, None]))[:, 0]
        return v * (len(v) / jnp.sum(v))

    # phi must be in it, if without effect
    one = lambda phi, losses, y: learned(phi, losses, y) ** 0.0
    return {
        "one": (one, False),
        "by frequency": (lambda *given: one(*given) * rare[given[2]], False),
        "Meta-Weight-Net": (learned, False),
        "one, validation set too": (one, True),
    }


def problem(
    body: jm.Model, weights: Weights, penalty: float, config: Config
) -> jm.Outer:
    """Both levels, by look-ahead of one step."""
    losses = lambda w, batch: jm.losses.cross_entropy(body.apply(w, batch.x), batch.y)

    def inner(w, phi, batch):
        each = losses(w, batch)
        v = weights(phi, jax.lax.stop_gradient(each), batch.y)
        return v @ each / len(each) + penalty / 2 * optax.tree.norm(w, squared=True)

    return jm.online_bilevel(
        inner,
        lambda w, phi, batch: jnp.mean(losses(w, batch)),
        optax.adam(config.outer_lr),
        init=NET.init,
        start=body.init,
        inner_lr=config.inner_lr,
        rule=partial(optax.sgd, momentum=0.9),
    )


def accuracy(body: jm.Model, outer: jm.Outer, sets: Sets, key, config: Config) -> float:
    """Share of the test set that is right, in %."""
    sampler = jm.tasks.single(sets.train, sets.validation, batch_size=config.batch_size)
    w = jm.fit(outer, sampler, steps=config.steps, key=key).w
    right = np.argmax(body.apply(w, sets.test.x), axis=1) == sets.test.y
    return float(100 * np.mean(right))


def spelled(results: dict) -> list[dict]:
    """Lines of the table: a row of weights, a column of each penalty."""
    lines = {}
    for row in results["rows"]:
        found = np.asarray(row["accuracy"])
        said = f"{found.mean():.1f} ± {interval(found):.1f}"
        line = lines.setdefault(row["weights"], {"weights": row["weights"]})
        line[f"penalty {row['penalty']:g}"] = said
    return list(lines.values())


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    table(f"Ten letters, 10:1, accuracy in %, {device()}", spelled(results))
    print(save("long_tail", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
