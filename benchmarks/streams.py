"""Episodes on the way to the learner: how many a second are sampled on the device, what
reading records costs a training, and whether memory stays what it is.

    python benchmarks/streams.py
    python benchmarks/streams.py --root FOLDER    # Omniglot in place of printed letters
"""

import io
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from characters import few_shot
from PIL import Image
from report import device, save, table

import jaxmeta as jm


@dataclass
class Config:
    """What to time."""

    root: Path | None = None  # folder of Omniglot; None = printed letters
    episodes: int = 20_000  # sampled for each rate
    sizes: tuple[tuple[int, int], ...] = ((20, 1), (20, 5), (5, 15))  # ways, queries
    steps: int = 60  # meta-steps of each training
    stored: tuple[str, ...] = ("on the device", "on the host", "PNG files")  # examples
    width: int = 64  # of conv4
    memory: int = 100_000  # episodes over which memory is watched, on each path
    repeats: int = 3
    seed: int = 0

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        some = "on the device", "PNG files"
        return cls(None, 20, ((20, 1),), 1, some, width=2, memory=40, repeats=1)


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows of rates, of trainings, of memory."""
    data, _ = few_shot(config.root)
    return {
        "rates": [rate(key, data, ways, q, config) for ways, q in config.sizes],
        "trainings": trainings(key, data, config),
        "memory": memory(key, data, config),
    }


def rate(key: jax.Array, data, ways: int, queries: int, config: Config) -> dict:
    """Episodes a second in one compiled program, each read by a sum."""
    sampler = jm.tasks.episodes(data, ways, 1, queries, rotations=True)

    @jax.jit
    def several(sampler, key):
        keys = jax.random.split(key, config.episodes)
        total = lambda key: sum(jnp.sum(b.x) for b in sampler.sample(key))
        return jax.lax.map(total, keys, batch_size=8)

    seconds = timed(lambda: several(sampler, jax.random.clone(key)), config.repeats)
    return {
        "ways": ways,
        "shots": 1,
        "queries": queries,
        "a second": config.episodes / seconds,
    }


class Pngs:
    """Images as the bytes of PNG files, decoded when they are read."""

    def __init__(self, images: np.ndarray):
        self.files = []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image[..., 0]).save(file, "PNG")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.files[i])))[..., None]


def of_records(data, records):
    """The same data set, its examples read when they are drawn."""
    labels = np.repeat(np.arange(len(data.counts)), data.counts)
    return jm.data.from_records(records, labels)


STORED = {
    "on the device": lambda data: data,
    "on the host": lambda data: of_records(data, data.x),
    "PNG files": lambda data: of_records(data, Pngs(data.x)),
}


def trainings(key: jax.Array, data, config: Config) -> list[dict]:
    """Milliseconds a meta-step of ProtoNet, 20-way 1-shot, 4 tasks a step, and how much
    more than of arrays on the device."""
    learner = jm.protonet(jm.models.conv4(None, widths=config.width), ways=20)
    optimizer, rows = optax.adam(1e-3), []
    for name in config.stored:
        sampler = jm.tasks.episodes(STORED[name](data), 20, 1, 5, rotations=True)
        whole = lambda steps, sampler=sampler: jm.fit(
            learner,
            sampler,
            optimizer,
            steps=steps,
            key=jax.random.clone(key),
            chunk=20,
        )
        seconds = timed(lambda whole=whole: whole(config.steps), config.repeats)
        ms = 1e3 * seconds / config.steps
        rows.append({"examples": name, "ms a step": ms})
    return [
        row | {"over arrays": row["ms a step"] / rows[0]["ms a step"]} for row in rows
    ]


def memory(key: jax.Array, data, config: Config) -> list[dict]:
    """Megabytes that the process grew by between a tenth and all of the episodes."""
    learner = jm.protonet(jm.models.mlp(784, 8, (8,)), ways=5)
    optimizer, rows = optax.sgd(1e-3), []
    for name in config.stored[:2]:
        sampler = jm.tasks.episodes(STORED[name](data), 5, 1, 1)
        steps, seen, state = config.memory // 4, [], None
        for part in (steps // 10, steps):
            state = jm.fit(
                learner, sampler, optimizer, steps=part, key=jax.random.clone(key),
                state=state,
            )  # fmt: skip
            seen.append(peak())
        rows.append(
            {"examples": name, "episodes": config.memory, "MB more": seen[1] - seen[0]}
        )
    return rows


def peak() -> float:
    """Megabytes, the most that the process held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(f, repeats: int) -> float:
    """Median seconds of a call, after one that compiles."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(f())
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def spelled(rows: list[dict]) -> list[dict]:
    """Rows of a table."""
    say = lambda v: f"{v:.2f}" if isinstance(v, float) else v
    return [{k: say(v) for k, v in row.items()} for row in rows]


def main(config: Config) -> None:
    """Time everything, print the tables, keep the numbers."""
    results = run(jax.random.key(config.seed), config)
    for name in results:
        table(f"{name}, {device()}", spelled(results[name]))
    print(save("streams", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
