"""Hyper-cleaning: a weight for each training example, learned on clean validation data.

    python benchmarks/hyper_cleaning.py

500 of scikit-learn's digits train a softmax regression, half of their labels are wrong;
the other level descends the loss of 500 clean ones in the weights. Then what has a weight
of more than a half is kept, and trained on together with the validation set.
"""

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from published import published
from report import device, save, spelled, table

import jaxmeta as jm

CLASSES, FEATURES = 10, 65


@dataclass
class Config:
    """The sets, and how both levels are solved."""

    train: int = 500
    validation: int = 500
    wrong: float = 0.5  # share of the training labels
    penalty: float = 1e-3
    outer_steps: int = 200
    outer_lr: float = 0.1
    inner_steps: int = 5  # for one outer step, from where the last one ended
    inner_lr: float = 1.0
    iterations: int = 20  # of conjugate gradients
    refit_steps: int = 2000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(40, 30, outer_steps=3, refit_steps=20, seeds=(0, 1))


class Sets(NamedTuple):
    """Examples of one seed; which labels of the training set are wrong."""

    train: jm.Batch
    validation: jm.Batch
    test: jm.Batch
    right: jm.Batch  # the training set with its own labels
    wrong: np.ndarray


def run(key: jax.Array, config: Config) -> dict:
    """Rows: accuracy on the test set, [seeds]; F1 of the labels found to be wrong."""
    rows, f1, seconds, outer = {}, [], [], problem(config)
    for seed in config.seeds:
        sets = divided(seed, config)
        start = time.perf_counter()
        weights = jax.block_until_ready(cleaned(outer, sets, key, config))
        seconds.append(time.perf_counter() - start)
        kept = np.asarray(weights) > 0
        f1.append(score(~kept, sets.wrong))
        for name, (batch, counts) in rows_of(sets, kept).items():
            found = accuracy(refitted(batch, counts, config), sets.test)
            rows.setdefault(name, []).append(found)
    rows = [{"trained on": n, "accuracy": np.array(a)} for n, a in rows.items()]
    return {"rows": rows, "f1": np.array(f1), "seconds": np.array(seconds)}


def divided(seed: int, config: Config) -> Sets:
    """The digits in a random order; wrong labels are any of the other nine."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    random = np.random.default_rng(seed)
    order = random.permutation(len(digits.target))
    x = np.append(digits.data / 16, np.ones((len(order), 1)), 1).astype(np.float32)
    x, y = x[order], digits.target[order].astype(np.int32)
    n, m = config.train, config.train + config.validation
    noisy, wrong = y[:n].copy(), np.zeros(n, bool)
    wrong[random.permutation(n)[: round(config.wrong * n)]] = True
    shift = random.integers(1, CLASSES, n)
    noisy[wrong] = (noisy + shift)[wrong] % CLASSES
    part = lambda a, b: jm.Batch(x[a:b], y[a:b])
    train = part(0, n)._replace(y=noisy)
    return Sets(train, part(n, m), part(m, None), part(0, n), wrong)


def cleaned(outer: jm.Outer, sets: Sets, key: jax.Array, config: Config) -> jax.Array:
    """Logits of the weights [train], after the outer steps."""
    return jm.fit(
        outer,
        jm.tasks.single(sets.train, sets.validation),
        steps=config.outer_steps,
        key=jax.random.clone(key),
    ).params


def problem(config: Config) -> jm.Outer:
    """Both levels, the implicit gradient by conjugate gradients, warm."""
    objective = partial(weighted, penalty=config.penalty)
    return jm.online_bilevel(
        lambda w, phi, batch: objective(w, jax.nn.sigmoid(phi), batch),
        lambda w, phi, batch: jnp.mean(jm.losses.cross_entropy(batch.x @ w, batch.y)),
        optax.adam(config.outer_lr),
        init=lambda key: jnp.zeros(config.train),
        start=lambda key: jnp.zeros((FEATURES, CLASSES)),
        inner_steps=config.inner_steps,
        inner_lr=config.inner_lr,
        adjoint=jm.Implicit("cg", iterations=config.iterations),
    )


def weighted(w, weights, batch, penalty):
    """Mean cross-entropy of weighted examples, and a penalty."""
    each = jm.losses.cross_entropy(batch.x @ w, batch.y)
    return jnp.mean(weights * each) + penalty / 2 * jnp.sum(w**2)


def rows_of(sets: Sets, kept: np.ndarray) -> dict:
    """Training and validation set, and how much each example counts."""
    both = lambda train: jax.tree.map(
        lambda a, b: np.append(a, b, 0), train, sets.validation
    )
    all_of, none_of = np.ones_like(kept), np.zeros_like(kept)
    clean = np.ones(len(sets.validation.y))
    return {
        "noisy": (both(sets.train), np.append(all_of, 0 * clean)),
        "noisy and validation": (both(sets.train), np.append(all_of, clean)),
        "validation": (both(sets.train), np.append(none_of, clean)),
        "kept and validation": (both(sets.train), np.append(kept, clean)),
        "right labels and validation": (both(sets.right), np.append(all_of, clean)),
    }


@partial(jax.jit, static_argnames=("steps", "rate"))
def descended(batch, weights, penalty, steps, rate):
    """Softmax regression on the examples that count, by Nesterov's momentum."""
    optimizer = optax.sgd(rate, momentum=0.9, nesterov=True)
    w = jnp.zeros((FEATURES, CLASSES))
    weights = weights * (weights.size / jnp.sum(weights))
    slope = jax.grad(lambda w: weighted(w, weights, batch, penalty))

    def step(_, carry):
        w, state = carry
        updates, state = optimizer.update(slope(w), state)
        return optax.apply_updates(w, updates), state

    return jax.lax.fori_loop(0, steps, step, (w, optimizer.init(w)))[0]


def refitted(batch, weights, config: Config) -> jax.Array:
    """Parameters of a row of the table."""
    given = batch, jnp.asarray(weights, jnp.float32), config.penalty
    return descended(*given, config.refit_steps, 0.5)


def accuracy(w, test: jm.Batch) -> float:
    """Share of the test set that is right."""
    return float(np.mean(np.argmax(test.x @ np.asarray(w), axis=1) == test.y))


def score(found: np.ndarray, wrong: np.ndarray) -> float:
    """F1 of what is taken to be wrong."""
    hits = (found & wrong).sum()
    return float(2 * hits / max(1, found.sum() + wrong.sum()))


def lines(results: dict) -> list[dict]:
    """The table: mean and range over seeds."""
    found = []
    for row in results["rows"]:
        theirs = published("hyper_cleaning", row["trained on"]).get("accuracy", "-")
        said = spelled(row["accuracy"], ".3f")
        found.append({"trained on": row["trained on"], "accuracy": said})
        found[-1] |= {"published, MNIST": theirs}
    f1 = spelled(results["f1"], ".3f")
    theirs = published("hyper_cleaning", "F1").get("F1", "-")
    return [
        *found,
        {
            "trained on": "F1 of the wrong labels",
            "accuracy": f1,
            "published, MNIST": theirs,
        },
    ]


def main(config: Config) -> None:
    """Clean, refit, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    table(f"Hyper-cleaning, {device()}", lines(results))
    print("seconds of a cleaning:", spelled(results["seconds"]))
    print(save("hyper_cleaning", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
