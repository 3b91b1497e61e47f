"""Trials that are timed: their sizes, and weights and records that all peers start from."""

from dataclasses import dataclass, replace

import numpy as np

HIDDEN = 64  # of the memory, and of both layers of navigation's policy


@dataclass(frozen=True)
class Trials:
    """One problem: an update collects trials of new tasks, then learns from them.

    rl2: PPO on whole trials, 4 passes of 4 minibatches. maml_rl: one inner step, one outer
    step on importance weights. Adam 1e-3 outside.
    """

    name: str
    method: str
    env: str
    tasks: int
    episodes: int  # of a batch
    horizon: int
    obs: int
    actions: int  # how many there are, or their numbers

    @property
    def batches(self) -> int:
        """Of a trial; before and after the inner step."""
        return 2 if self.method == "maml_rl" else 1

    @property
    def inputs(self) -> int:
        """Observation, last action, last reward, whether an episode begins."""
        return self.obs + self.actions + 2

    @property
    def steps(self) -> int:
        """Environment steps of an update."""
        return self.tasks * self.batches * self.episodes * self.horizon

    def small(self) -> "Trials":
        """To compare gradients in float64."""
        return replace(self, tasks=4, episodes=min(self.episodes, 3), horizon=8)


TRIALS = {
    w.name: w
    for w in (
        Trials("bandit", "rl2", "bandit", 512, 1, 10, 1, 5),
        Trials("grid", "rl2", "grid", 256, 4, 15, 2, 5),
        Trials("navigation", "maml_rl", "navigation", 20, 20, 100, 2, 2),
        Trials("bandit, tiny", "rl2", "bandit", 4, 1, 3, 1, 2),
    )
}


def data(w: Trials, dtype) -> dict[str, np.ndarray]:
    """Made-up records [batches, tasks, episodes, steps, ...]; navigation ends early."""
    random = np.random.default_rng(0)
    shape = w.batches, w.tasks, w.episodes, w.horizon
    mask, action = np.ones(shape), random.integers(w.actions, size=shape)
    if w.method == "maml_rl":
        action = random.normal(size=(*shape, w.actions)).astype(dtype)
        mask = np.arange(w.horizon) < random.integers(
            1, w.horizon + 1, (*shape[:-1], 1)
        )
    made = {
        "obs": random.normal(size=(*shape, w.obs)),
        "reward": random.normal(size=shape),
        "log_prob": random.uniform(-3, -1, shape),
        "value": random.normal(size=shape),
        "mask": mask,
    }
    return {name: a.astype(dtype) for name, a in made.items()} | {"action": action}


def weights(w: Trials, dtype) -> dict[str, np.ndarray]:
    """Initial weights by dotted name; kernels (in, out), gates in the order r, z, n."""
    random = np.random.default_rng(1)
    normal = lambda *shape: (random.normal(size=shape) / shape[0] ** 0.5).astype(dtype)
    zeros = lambda *shape: np.zeros(shape, dtype)
    if w.method == "maml_rl":
        made = {"log_std": zeros(w.actions)}
        ends = {"dense1": (w.obs, HIDDEN), "dense2": (HIDDEN, HIDDEN)}
        layers = ends | {"head": (HIDDEN, w.actions)}
    else:
        made = {
            "memory.x": normal(w.inputs, 3 * HIDDEN),
            "memory.h": normal(HIDDEN, 3 * HIDDEN),
            "memory.bias": zeros(3 * HIDDEN),
            "memory.bias_h": zeros(3 * HIDDEN),
        }
        layers = {"policy": (HIDDEN, w.actions), "value": (HIDDEN, 1)}
    for name, (i, o) in layers.items():
        made |= {f"{name}.kernel": normal(i, o), f"{name}.bias": zeros(o)}
    return made
