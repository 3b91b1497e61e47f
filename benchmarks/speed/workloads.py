"""What is timed: numpy data and initial weights that every peer starts from."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One meta-training problem. Inner steps of plain SGD, Adam 1e-3 outside."""

    name: str
    method: str  # maml, fomaml, anil, protonet
    network: str  # mlp 1-40-40-1, or conv4 with 64 channels on 28 x 28
    tasks: int
    ways: int = 5
    shots: int = 1
    queries: int = 15
    steps: int = 1

    @property
    def inner_lr(self) -> float:
        return 0.01 if self.network == "mlp" else 0.1

    def small(self) -> "Workload":
        """Two tasks, at most two steps: to compare gradients in float64."""
        return replace(self, tasks=2, queries=3, steps=min(self.steps, 2))


def _c(name, method="maml", **kwargs):
    return Workload(name, method, "conv4", **({"tasks": 16} | kwargs))


def _s(steps):
    name = f"S, {steps}"
    return Workload(name, "maml", "mlp", 25, shots=10, queries=10, steps=steps)


WORKLOADS = {
    w.name: w
    for w in (
        _s(1),
        _s(5),
        _s(10),
        _c("C, 1"),
        _c("C, 5", steps=5),
        _c("C, 20-way", tasks=8, ways=20, queries=5),
        _c("C, first order, 5", "fomaml", steps=5),
        _c("C, ANIL, 5", "anil", steps=5),
        _c("C, ProtoNet", "protonet"),
        _c("M, 10", tasks=2, steps=10),
        _c("M, 20", tasks=2, steps=20),
    )
}
END_TO_END = _c("E")  # C, 1 with episodes drawn anew at each step


def data(w: Workload, dtype) -> dict[str, np.ndarray]:
    """xs, ys, xq, yq with a leading task axis; images NHWC, labels in order of class."""
    random = np.random.default_rng(0)
    made = {}
    for part, each in (("s", w.shots), ("q", w.queries)):
        if w.network == "mlp":
            x = random.uniform(-5, 5, (w.tasks, each, 1))
            y = np.sin(x).astype(dtype)
        else:
            x = random.random((w.tasks, w.ways * each, 28, 28, 1))
            y = np.tile(np.repeat(np.arange(w.ways), each), (w.tasks, 1))
        made |= {f"x{part}": x.astype(dtype), f"y{part}": y}
    return made


def weights(w: Workload, dtype) -> dict[str, np.ndarray]:
    """Initial weights; convolution kernels HWIO, dense kernels (in, out)."""
    random = np.random.default_rng(1)
    normal = lambda *shape: random.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    made = {}
    if w.network == "mlp":
        for name, i, o in (("dense1", 1, 40), ("dense2", 40, 40), ("head", 40, 1)):
            made |= {f"{name}.kernel": normal(i, o), f"{name}.bias": np.zeros(o)}
    else:
        for i in range(1, 5):
            kernel = normal(3, 3, 1 if i == 1 else 64, 64)
            made |= {f"conv{i}.kernel": kernel, f"conv{i}.bias": np.zeros(64)}
            made |= {f"norm{i}.scale": np.ones(64), f"norm{i}.offset": np.zeros(64)}
        if w.method != "protonet":
            made |= {"head.kernel": normal(64, w.ways), "head.bias": np.zeros(w.ways)}
    return {name: a.astype(dtype) for name, a in made.items()}


class Episodes:
    """The numpy loader of workload E: classes, rotations and examples at random."""

    def __init__(self, w: Workload):
        self.w, self.random = w, np.random.default_rng(0)
        self.images = pool()

    def __call__(self) -> dict[str, np.ndarray]:
        w, tasks = self.w, []
        for _ in range(w.tasks):
            classes = self.random.choice(len(self.images), w.ways, replace=False)
            turns = self.random.integers(4, size=w.ways)
            each = w.shots + w.queries
            x = np.stack(
                [
                    np.rot90(self.random.permutation(self.images[c])[:each], t, (1, 2))
                    for c, t in zip(classes, turns, strict=True)
                ]
            )
            tasks.append((x[:, : w.shots], x[:, w.shots :]))
        fresh = data(w, np.float32)
        for i, part in enumerate("sq"):
            shape = fresh[f"x{part}"].shape
            fresh[f"x{part}"] = np.stack([t[i] for t in tasks]).reshape(shape)
        return fresh


def pool() -> np.ndarray:
    """[classes, examples, 28, 28, 1] made-up characters for workload E."""
    images = np.random.default_rng(2).random((200, 20, 28, 28, 1))
    return images.astype(np.float32)
