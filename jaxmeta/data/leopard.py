"""LEOPARD: 17 tasks of classifying texts, ten support sets for each of 4, 8 and 16 shots.

Bansal, Jha, McCallum. Learning to Few-Shot Learn Across Diverse Natural Language
Classification Tasks. COLING 2020, arXiv 1911.03863; the authors' files in JSON.

Departure: they read the texts by BERT; here they are counts of hashed n-grams (`hashed`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta import checks
from jaxmeta.data.texts import check_hashing, hashed, is_text
from jaxmeta.types import Batch, Task

SHOTS = (4, 8, 16)
SAMPLES = 10
LEOPARD = (
    *("airline", "conll", "disaster", "emotion", "political_audience"),
    *("political_bias", "political_message", "rating_books", "rating_dvd"),
    *("rating_electronics", "rating_kitchen", "restaurant", "scitail"),
    *("sentiment_books", "sentiment_dvd", "sentiment_electronics", "sentiment_kitchen"),
)


def leopard(
    root: str | Path,
    name: str,
    *,
    shots: int = 4,
    sample: int = 0,
    dims: int = 2048,
    sizes: tuple[int, int] = (2, 4),
) -> tuple[Task, tuple[str, ...]]:
    """One of the few-shot tasks, for `jm.evaluate_episodes(learner, params, [task])`.

    Args:
        root: the folder `data/json` of the authors' repository.
        name: of the task, of `jm.data.LEOPARD`. shots: 4, 8 or 16 examples a class.
        sample: which of the ten support sets, 0 to 9. dims, sizes: as in `hashed`.

    Returns: the task, x float32 [examples, dims] (twice as many where an example is two
        texts), y int32; and its classes, in sorted order. Its query set is the whole test
        set, the same for all shots and samples.
    Raises: ValueError for a task, shots or sample that there is not, a file that is missing
        (it is named), empty or not as published, a class that only one of the sets has.
    """
    checks.check_paths(root=root)
    checks.check_choice("name", name, LEOPARD)
    checks.check_sizes(0, SAMPLES - 1, sample=sample)
    checks.check_sizes(shots=shots)
    check_hashing(dims, sizes)
    if shots not in SHOTS:
        raise ValueError(f"shots: expected 4, 8 or 16, got {checks.said(shots)}")
    stem = "conll_c" if name == "conll" else name
    folder = Path(root) / name
    support = _read(folder / f"{stem}_train_{sample}_{shots}.json")
    query = _read(folder / f"{stem}_eval.json")
    classes = tuple(sorted({label for _, label in query}))
    learnt = sorted({label for _, label in support})
    if learnt != list(classes):
        raise ValueError(
            f"{folder}: expected the classes {checks.few(classes)} of its test set, got "
            f"{checks.few(learnt)} in the support set {sample} of {shots} shots"
        )
    if len(support[0][0]) != len(query[0][0]):
        raise ValueError(f"{folder}: expected as many texts of an example in both sets")
    texts = [text for text, _ in (*support, *query)]
    x = hashed(texts, dims=dims, sizes=sizes)
    y = np.array([classes.index(label) for _, label in (*support, *query)], np.int32)
    n = len(support)
    return Task(Batch(x[:n], y[:n]), Batch(x[n:], y[n:])), classes


def _read(file: Path) -> list[tuple[tuple[str, ...], str]]:
    """The texts of each example, and its label. Raises: ValueError naming the file."""
    if not file.is_file():
        raise ValueError(
            f"{file}: expected a file of iesl/leopard on GitHub (its folder data/json is "
            "`root`), found none"
        )
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise ValueError(f"{file}: expected JSON ({error})") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(
            f"{file}: expected a list of examples, got {checks.said(rows)}"
        )
    examples = [_example(file, i, row) for i, row in enumerate(rows)]
    numbers = [len(texts) for texts, _ in examples]
    if len(set(numbers)) > 1:
        other = next(i for i, n in enumerate(numbers) if n != numbers[0])
        raise ValueError(
            f"{file}: expected {numbers[0]} texts of each example as of the first, got "
            f"{numbers[other]} in example {other}"
        )
    return examples


def _example(file: Path, i: int, row: Any) -> tuple[tuple[str, ...], str]:
    given = row if isinstance(row, dict) else {}
    fields = ("sentence1", *(["sentence2"] if "sentence2" in given else []), "label")
    values: list[Any] = [given.get(field) for field in fields]
    if not all(map(is_text, values)):
        raise ValueError(
            f"{file}: expected strings 'sentence1', 'label' and perhaps 'sentence2' of "
            f"each example, got {checks.said(row)} in example {i}"
        )
    *texts, label = values
    return tuple(texts), label
