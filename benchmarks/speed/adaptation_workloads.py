"""Pairs of domains to adapt to: sizes, points, and weights that all peers start from."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Pair:
    """One task: a source with labels, as many examples of a target without.

    coral, entropic, class_regularised: a move in closed form, then softmax regression.
    dann: two hidden layers of `width` and a discriminator, Adam 3e-3, as many `steps`.
    """

    name: str
    method: str
    examples: int  # of each domain, and of the query set
    inputs: int
    ways: int
    width: int = 0
    steps: int = 0
    batch: int | None = None  # of each domain; None = all

    def small(self) -> "Pair":
        """To compare trained networks in float64."""
        return replace(self, examples=40, inputs=5, width=6, steps=20, batch=None)


PAIRS = {
    w.name: w
    for w in (
        Pair("CORAL, 2", "coral", 300, 2, 2),
        Pair("CORAL, 64", "coral", 500, 64, 10),
        Pair("entropic OT, 2", "entropic", 300, 2, 2),
        Pair("entropic OT, 64", "entropic", 500, 64, 10),
        Pair("class-reg. OT, 2", "class_regularised", 300, 2, 2),
        Pair("class-reg. OT, 64", "class_regularised", 500, 64, 10),
        Pair("DANN, 10 wide", "dann", 300, 2, 2, 10, 1000, 34),
        Pair("DANN, 128 wide", "dann", 500, 784, 10, 128, 300, 64),
        Pair("DANN, digits", "dann", 1800, 64, 10, 128, 300, 64),
        Pair("DANN, tiny", "dann", 8, 2, 2, 4, 3, 4),
    )
}
REGULARIZATION, ETA = 0.05, 0.1  # of transport, in units of the mean cost
ITERATIONS, ROUNDS = 100, 10  # of a plan; plans with a class penalty, the first without


def data(w: Pair, dtype) -> dict[str, np.ndarray]:
    """Clusters, one a class; those of the target are turned a little, and moved."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(w.ways, w.inputs))
    turn = np.eye(w.inputs) + 0.3 * random.normal(size=(w.inputs,) * 2) / w.inputs**0.5
    made = {}
    for name in ("source", "target", "query"):
        y = random.integers(w.ways, size=w.examples)
        noise = 0.3 * w.inputs**0.5 * random.normal(size=(w.examples, w.inputs))
        x = centres[y] + noise
        made[name] = (x if name == "source" else x @ turn + 0.5).astype(dtype)
        made[f"{name}_y"] = y
    return made


def weights(w: Pair, dtype) -> dict[str, np.ndarray]:
    """Initial weights by dotted name; kernels (in, out)."""
    random, made = np.random.default_rng(2), {}
    for name, (i, o) in {
        "encoder.dense1": (w.inputs, w.width),
        "encoder.head": (w.width, w.width),
        "classifier": (w.width, w.ways),
        "discriminator.dense1": (w.width, w.width),
        "discriminator.head": (w.width, 1),
    }.items():
        kernel = random.normal(size=(i, o)) / max(i, 1) ** 0.5
        made |= {f"{name}.kernel": kernel.astype(dtype)}
        made |= {f"{name}.bias": np.zeros(o, dtype)}
    return made
