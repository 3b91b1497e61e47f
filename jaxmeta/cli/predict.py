"""A folder of new images, labelled from a folder of labelled ones (`jaxmeta predict`)."""

import csv
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta import data
from jaxmeta.cli.loaded import load
from jaxmeta.cli.run import written
from jaxmeta.types import Batch, Task


def predict(run: Path, support: Path, query: Path, out: Path) -> None:
    """Adapt a run's learner to a folder of classes, label other images, write a CSV file.

    Raises: ValueError for a run that is not of images, or whose learner has another number
        of classes in its parameters; FileExistsError for a file that is there.
    """
    if out.exists():
        raise FileExistsError(
            f"{out} exists; nothing was changed. Choose another --out"
        )
    given = load(run)
    size, mode = _images_of(given)
    known = data.from_folder(support, size=size, mode=mode)
    files, images = data.read_images(query, size=size, mode=mode)
    learner = _for_classes(given, len(known.classes))
    labels = np.repeat(np.arange(len(known.classes), dtype=np.int32), known.counts)
    adapted = jax.jit(learner.adapt)(given.params, Batch(known.x, labels))
    logits = np.asarray(jax.jit(learner.predict)(adapted, images))
    chances = np.asarray(jax.nn.softmax(logits))
    written(out, _csv(files, known.classes, chances))
    print(f"{len(files)} images in {len(known.classes)} classes: {out}")


def _images_of(given) -> tuple[tuple[int, int], Any]:
    """Size and mode of the images that a run was trained on."""
    sample = getattr(given.samplers["test"], "sample", lambda key: key)
    task = jax.eval_shape(sample, jax.random.key(0))  # of an agent, what it acts in
    x = task.support.x if isinstance(task, Task) else None
    shape = getattr(x, "shape", ())
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise ValueError(
            f"run: {given.run.folder} was not trained on images, but on inputs "
            f"{shape[1:]}; expected a run on images"
        )
    return shape[1:3], "L" if shape[-1] == 1 else "RGB"


def _for_classes(given, classes: int):
    """The learner for another number of classes. Raises: ValueError if it can't be."""
    learner = given.recipe.with_ways(classes)
    shapes = lambda m: jax.eval_shape(m.init, jax.random.key(0))
    if shapes(learner) != shapes(given.learner):
        raise ValueError(
            f"support: has {classes} classes, and {given.recipe.about['learner']} was "
            f"trained for {given.recipe.options.ways}, which its parameters depend on; "
            f"expected {given.recipe.options.ways} folders"
        )
    return learner


def _csv(files, classes, chances: np.ndarray) -> str:
    """file,label,probability and then a column for each class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "label", "probability", *classes])
    for file, row in zip(files, chances, strict=True):
        best = int(row.argmax())
        table.writerow(
            [file, classes[best], f"{row[best]:.4f}", *(f"{p:.4f}" for p in row)]
        )
    return text.getvalue()
