"""Own data from a folder, and an unseen domain: ProtoNet trained on printed letters, tested
on scikit-learn's hand-written digits, read from a folder of PNGs of mixed sizes and modes.

    python benchmarks/digits.py
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro
from PIL import Image
from report import device, save, table

import jaxmeta as jm


@dataclass
class Config:
    """How long to train, on how many tasks to test."""

    steps: int = 2000
    width: int = 64
    shots: tuple[int, ...] = (1, 5)
    test_tasks: int = 600
    seed: int = 0
    images: int = 1797  # all there are

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(steps=2, width=2, shots=(1,), test_tasks=4, images=250)


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: shots, learner, accuracy in % and half its 95 % interval, 5 ways."""
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), config.images)
        digits = jm.data.from_folder(folder, size=28, mode="L", name="digits")
    rows = []
    for shots in config.shots:
        test = jm.tasks.episodes(digits, 5, shots, 15)
        for name, learner, params in (
            ("pixel nearest neighbour", jm.nearest_neighbour(ways=5), ()),
            ("ProtoNet, trained on letters", *trained(key, shots, config)),
        ):
            report = jm.evaluate(
                learner, params, test, num_tasks=config.test_tasks,
                key=jax.random.key(config.seed + 1),
            )  # fmt: skip
            accuracy, ci95 = (100 * r["accuracy"] for r in (report.mean, report.ci95))
            rows.append(
                {"shots": shots, "learner": name, "accuracy": accuracy, "ci95": ci95}
            )
    return {"rows": rows}


def written(folder: Path, images: int) -> None:
    """The 1,797 digits, or the first of them, as a user may have them: a class a folder,
    ink dark or in colour, from 8 to 40 pixels a side."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    some = found.images[:images], found.target[:images]
    random = np.random.default_rng(0)
    for i, (image, label) in enumerate(zip(*some, strict=True)):
        side = int(random.integers(8, 41))
        ink = Image.fromarray(np.round(image * 255 / 16).astype(np.uint8))
        ink = ink.resize((side, side), Image.Resampling.BICUBIC)
        path = folder / str(label) / f"{i:04d}.png"
        path.parent.mkdir(exist_ok=True)
        ink.convert(random.choice(["L", "RGB", "P"])).save(path)


def trained(key: jax.Array, shots: int, config: Config):
    """ProtoNet and what it learned of Latin, Greek and Cyrillic letters."""
    model = jm.models.conv4(None, widths=config.width, strided=True)
    learner = jm.protonet(model, ways=5)
    letters = jm.tasks.episodes(jm.data.glyphs().at_least(10), 5, shots, 5, jitter=1.0)
    state = jm.fit(
        learner, letters, optax.adam(1e-3), steps=config.steps,
        key=jax.random.clone(key),
    )  # fmt: skip
    return learner, state.params


def spelled(row: dict) -> dict:
    """A row of the table."""
    said = f"{row['accuracy']:.2f} ± {row['ci95']:.2f}"
    return {"shots": row["shots"], "learner": row["learner"], "accuracy, %": said}


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = run(jax.random.key(config.seed), config)
    table(f"Digits, 5 ways, {device()}", [spelled(row) for row in results["rows"]])
    print(save("digits", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
