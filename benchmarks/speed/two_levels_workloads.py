"""Problems in two levels to time: sizes, data, and the weights that all peers start from."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

CLASSES, PIXELS = 10, 64


@dataclass(frozen=True)
class Levels:
    """One problem; both levels go on from where they were, SGD inside, Adam outside.

    unrolled, implicit: hyper-cleaning, a weight for each example and softmax regression,
    its derivative through the inner steps, or at their end by conjugate gradients.
    weight_net: Meta-Weight-Net, a network of two layers, its derivative through one step.
    """

    name: str
    method: str
    train: int = 500
    validation: int = 500
    wrong: float = 0.5  # share of the training labels
    inner_steps: int = 5
    inner_lr: float = 1.0
    outer_lr: float = 0.1
    batch: int | None = None  # examples of each set in a step; None = all
    width: int = 32
    net_width: int = 16
    turn: int = 100  # outer steps that are timed at once

    def small(self) -> "Levels":
        """One step on all examples, to compare its derivatives in float64."""
        return replace(self, batch=None, turn=1)


PROBLEMS = {
    w.name: w
    for w in (
        Levels("hyper-cleaning, 5 steps", "unrolled"),
        Levels("hyper-cleaning, 20 of CG", "implicit"),
        Levels(
            "Meta-Weight-Net", "weight_net", 1000, 100, 0.4, 1, 0.5, 1e-3, batch=50
        ),
        Levels("Meta-Weight-Net, tiny", "weight_net", 20, 10, 0.4, 1, 0.5, 1e-3, 5, 4, 3, 2),
    )
}  # fmt: skip
PENALTY, ITERATIONS = 1e-3, 20  # of softmax regression; of conjugate gradients


def data(w: Levels, dtype) -> dict[str, np.ndarray]:
    """scikit-learn's digits in a random order; wrong labels are any of the other nine."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    random = np.random.default_rng(0)
    order = random.permutation(len(digits.target))
    x, y = (digits.data[order] / 16).astype(dtype), digits.target[order]
    if w.method != "weight_net":  # a constant in place of a bias
        x = np.append(x, np.ones((len(x), 1), dtype), axis=1)
    n, m = w.train, w.train + w.validation
    wrong = random.random(n) < w.wrong
    noisy = np.where(wrong, (y[:n] + random.integers(1, CLASSES, n)) % CLASSES, y[:n])
    sets = {"train": x[:n], "validation": x[n:m], "test": x[m:]}
    return sets | {
        "train_y": noisy,
        "validation_y": y[n:m],
        "test_y": y[m:],
        "wrong": wrong,
    }


def weights(w: Levels, dtype) -> dict[str, np.ndarray]:
    """Initial parameters of both levels by dotted name; kernels (in, out)."""
    if w.method != "weight_net":
        return {
            "low.kernel": np.zeros((PIXELS + 1, CLASSES), dtype),
            "high.logits": np.zeros(w.train, dtype),
        }
    random, made = np.random.default_rng(1), {}
    for name, (i, o) in {
        "low.dense1": (PIXELS, w.width),
        "low.head": (w.width, CLASSES),
        "high.dense1": (1, w.net_width),
        "high.head": (w.net_width, 1),
    }.items():
        scale = 0.1 if name == "high.head" else (2 / i) ** 0.5  # trust small losses
        kernel = scale * random.normal(size=(i, o))
        made[f"{name}.kernel"] = kernel.astype(dtype)
        made[f"{name}.bias"] = np.zeros(o, dtype)
    return made


def f1(found: np.ndarray, wrong: np.ndarray) -> float:
    """Of the labels that are taken to be wrong."""
    return float(2 * (found & wrong).sum() / max(1, found.sum() + wrong.sum()))
