"""Texts without a network: ridge regression on hashed n-grams, on the tasks of LEOPARD.

    python benchmarks/leopard.py --root FOLDER

FOLDER is data/json of the authors' repository (iesl/leopard on GitHub). Every support set
that there is, tested on the whole test set; nothing is meta-learned.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from report import device, save, spelled, table

import jaxmeta as jm
from jaxmeta.data.leopard import LEOPARD, SAMPLES, SHOTS


@dataclass
class Config:
    """What is tested; root: None = a few sentences."""

    root: Path | None = None
    names: tuple[str, ...] = LEOPARD
    shots: tuple[int, ...] = SHOTS
    samples: int = SAMPLES
    dims: int = 2048

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(None, ("airline", "scitail"), (4,), 2, 64)


def run(key: jax.Array, config: Config) -> list[dict]:
    """Rows: task and shots; of each support set the accuracy of both learners (%), and the
    share of the largest class."""
    if config.root is None:
        with tempfile.TemporaryDirectory() as folder:
            write_sentences(Path(folder), config)
            return rows_of(key, Path(folder), config)
    return rows_of(key, config.root, config)


def rows_of(key: jax.Array, root: Path, config: Config) -> list[dict]:
    """A row for each task and number of shots that has files."""
    rows = []
    for name in config.names:
        for shots in config.shots:
            found = {"R2D2": [], "prototypes": []}
            largest, ways = 0.0, 0
            for sample in range(config.samples):
                try:
                    task, classes = jm.data.leopard(
                        root, name, shots=shots, sample=sample, dims=config.dims
                    )
                except (
                    ValueError
                ) as error:  # some files are empty or too large to publish
                    print(error, flush=True)
                    continue
                ways = len(classes)
                largest = 100 * np.bincount(task.query.y).max() / len(task.query.y)
                for learner, accuracies in found.items():
                    accuracies.append(accuracy(key, learner, ways, task))
            if ways:
                row = {"task": name, "shots": shots, "ways": ways, "largest": largest}
                rows.append(row | {n: np.array(a) for n, a in found.items()})
    if not rows:
        raise SystemExit(f"{root}: no task was found")
    return rows


def accuracy(key: jax.Array, name: str, ways: int, task: jm.Task) -> float:
    """Of one support set, in %."""
    same = jm.Model(lambda key: (), lambda params, x: x)
    learner = {"R2D2": jm.r2d2, "prototypes": jm.protonet}[name](same, ways=ways)
    params = learner.init(jax.random.clone(key))
    report = jm.evaluate_episodes(learner, params, [task])
    return 100 * report.mean["accuracy"]


def write_sentences(root: Path, config: Config) -> None:
    """Files of the published form: two tasks of two classes."""
    words = {"yes": ("fine", "good", "lovely"), "no": ("bad", "poor", "awful")}
    for name in config.names:
        folder = root / name
        folder.mkdir()
        for sample in range(config.samples):
            for shots in config.shots:
                file = folder / f"{name}_train_{sample}_{shots}.json"
                file.write_text(json.dumps(sentences(words, shots, name == "scitail")))
        test = sentences(words, 9, name == "scitail")
        (folder / f"{name}_eval.json").write_text(json.dumps(test))


def sentences(
    words: dict[str, tuple[str, ...]], number: int, pairs: bool
) -> list[dict]:
    """As many examples of each class."""
    rows = []
    for label, of_label in words.items():
        for i in range(number):
            row = {"sentence1": f"a {of_label[i % 3]} flight {i}", "label": label}
            rows.append(row | ({"sentence2": f"it was {of_label[0]}"} if pairs else {}))
    return rows


def lines(results: dict) -> list[dict]:
    """Lines of the table, mean and range over support sets."""
    return [
        {
            **{"task": row["task"], "classes": row["ways"], "shots": row["shots"]},
            "ridge regression (R2D2), %": spelled(row["R2D2"], ".1f"),
            "prototypes, %": spelled(row["prototypes"], ".1f"),
            "largest class, %": f"{row['largest']:.1f}",
        }
        for row in results["rows"]
    ]


def main(config: Config) -> None:
    """Test, print the table, keep the numbers."""
    results = {"rows": run(jax.random.key(0), config)}
    table(f"LEOPARD, hashed n-grams, {device()}", lines(results))
    print(save("leopard", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
