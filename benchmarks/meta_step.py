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
from report import device, save, table

import jaxmeta as jm

CONVOLUTIONS = ("patches", "winograd", "lax")


def waves(conv):
    """MAML on sinusoids, which has no convolution."""
    model = jm.models.mlp()
    return jm.maml(model, inner_lr=0.01, loss=jm.losses.mse), jm.tasks.sinusoid(), 25


def strided(conv):
    """MAML with strided blocks."""
    model = jm.models.conv4(5, strided=True, conv=conv)
    return jm.maml(model), jm.tasks.episodes(jm.data.glyphs(), 5, 1, 1), 32


def pooled(conv):
    """MAML with max-pooling."""
    model = jm.models.conv4(5, conv=conv)
    return jm.maml(model), jm.tasks.episodes(jm.data.glyphs(), 5, 1, 5), 16


def prototypes(conv):
    """ProtoNet, without an inner loop."""
    learner = jm.protonet(jm.models.conv4(None, conv=conv), ways=20)
    return learner, jm.tasks.episodes(jm.data.glyphs(), 20, 1, 5), 4


# how to compute a convolution -> (learner, sampler, tasks)
PROBLEMS = {
    "MAML, mlp 1-40-40-1, 25 sinusoids": waves,
    "MAML, conv4 strided, 32 tasks 5w1s": strided,
    "MAML, conv4 max-pool, 16 tasks 5w1s": pooled,
    "ProtoNet, conv4 max-pool, 4 tasks 20w1s": prototypes,
}


@dataclass
class Config:
    """What to time."""

    problems: tuple[str, ...] = tuple(PROBLEMS)
    at_once: tuple[int, ...] = (1, 4, 0)  # tasks in one vmap; 0 = all
    repeats: int = 7  # timed steps; the median is shown
    seed: int = 0

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no convolution."""
        return cls(problems=("MAML, mlp 1-40-40-1, 25 sinusoids",), repeats=2)


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: problem, convolution, tasks at once, compile seconds, ms a step."""
    rows = []
    for name in config.problems:
        for method in CONVOLUTIONS if "conv4" in name else ("-",):
            learner, sampler, n = PROBLEMS[name](method)
            for at_once in sorted({some or n for some in config.at_once}):
                if method == "lax" and at_once != n and "MAML" in name:
                    continue  # a lax convolution inside a loop takes minutes
                row = {"problem": name, "conv": method, "at once": at_once}
                step = time_step(key, learner, sampler, n, at_once, config.repeats)
                rows.append(row | step)
    return {"rows": rows}


def time_step(
    key: jax.Array, learner, sampler, n: int, at_once: int, repeats: int
) -> dict[str, float]:
    """Compile, then the median of timed steps on the same n tasks."""
    again = lambda: jax.random.clone(key)
    tasks, optimizer = jm.sample_tasks(sampler, again(), n), optax.adam(1e-3)
    at_once = max(size for size in range(1, at_once + 1) if n % size == 0)
    state = jm.init_state(learner, optimizer, again())
    step = jm.make_step(learner, optimizer, tasks_at_once=at_once)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, tasks, again()))
        times.append(time.perf_counter() - start)
    median = sorted(times[1:])[repeats // 2]
    return {"compile s": times[0], "ms a step": 1e3 * median}


def spelled(row: dict) -> dict:
    """A row of the table."""
    seconds, ms = row["compile s"], row["ms a step"]
    return row | {"compile s": f"{seconds:.1f}", "ms a step": f"{ms:.2f}"}


def main(config: Config) -> None:
    """Time everything, print the table, keep the numbers."""
    results = run(jax.random.key(config.seed), config)
    table(f"One meta-step, {device()}", [spelled(row) for row in results["rows"]])
    print(save("meta_step", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
