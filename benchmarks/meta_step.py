"""Time of one meta-step on this machine: how convolutions are computed, and how many
tasks run at once. The defaults of `jaxmeta.models.layers` and `jaxmeta.outer` are read
off this table.

    python benchmarks/meta_step.py
"""

import time
from dataclasses import dataclass

import jax
import optax
import tyro
from report import device, table

import jaxmeta as jm


@dataclass
class Config:
    """What to time."""

    repeats: int = 7  # timed steps; the median is shown
    seed: int = 0


def problems(seed: int):
    """name -> (constructor of a learner from a conv method, batch of tasks)."""
    key = jax.random.key(seed)
    glyphs = jm.data.glyphs("train")
    few = jm.sample_tasks(jm.tasks.episodes(glyphs, 5, 1, 1), key, 32)
    many = jm.sample_tasks(jm.tasks.episodes(glyphs, 5, 1, 5), key, 16)
    wide = jm.sample_tasks(jm.tasks.episodes(glyphs, 20, 1, 5), key, 4)
    waves = jm.sample_tasks(jm.tasks.sinusoid(), key, 25)
    regressor = lambda _: jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    conv4 = jm.models.conv4
    return {
        "MAML, mlp 1-40-40-1, 25 sinusoids": (regressor, waves),
        "MAML, conv4 strided, 32 tasks 5w1s": (
            lambda conv: jm.maml(conv4(5, strided=True, conv=conv)),
            few,
        ),
        "MAML, conv4 max-pool, 16 tasks 5w1s": (
            lambda conv: jm.maml(conv4(5, conv=conv)),
            many,
        ),
        "ProtoNet, conv4 max-pool, 4 tasks 20w1s": (
            lambda conv: jm.protonet(conv4(None, conv=conv), ways=20),
            wide,
        ),
    }


def run(config: Config) -> list[dict]:
    """Rows: problem, convolution, tasks at once, compile seconds, ms a step."""
    rows = []
    for name, (make, tasks) in problems(config.seed).items():
        n = tasks.support.x.shape[0]
        methods = ("patches", "winograd", "lax") if "conv4" in name else ("-",)
        for method in methods:
            for at_once in sorted({1, 4, n}):
                if method == "lax" and at_once != n and "MAML" in name:
                    continue  # a lax convolution inside a loop takes minutes
                step = time_step(make(method), tasks, at_once, config)
                rows.append(
                    {"problem": name, "conv": method, "at once": at_once} | step
                )
    return rows


def time_step(learner, tasks, at_once: int, config: Config) -> dict:
    """Compile, then the median of timed steps."""
    n = tasks.support.x.shape[0]
    at_once = max(size for size in range(1, at_once + 1) if n % size == 0)
    optimizer = optax.adam(1e-3)
    key = jax.random.key(config.seed)
    state = jm.init_state(learner, optimizer, key)
    step = jm.make_step(learner, optimizer, tasks_at_once=at_once)
    start = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, tasks, key))
    compile_s = time.perf_counter() - start
    times = []
    for _ in range(config.repeats):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, tasks, key))
        times.append(time.perf_counter() - start)
    median = sorted(times)[len(times) // 2]
    return {"compile s": f"{compile_s:.1f}", "ms a step": f"{1e3 * median:.2f}"}


if __name__ == "__main__":
    arguments = tyro.cli(Config, description=__doc__)
    table(f"One meta-step, {device()}", run(arguments))
