"""Images of the user's, in folders: a class a folder."""

from itertools import combinations
from pathlib import Path

from jaxmeta import data
from jaxmeta.cli.options import Options
from jaxmeta.cli.sources import images
from jaxmeta.cli.sources.source import source
from jaxmeta.types import Sampler

SPLITS = ("train", "validation", "test")
SIZE = 28


def _samplers(options: Options) -> dict[str, Sampler]:
    if options.root is None:
        raise ValueError(
            "folder: expected --root, a folder with a folder of images for each class, or "
            "with train/, validation/ and test/ that have them"
        )
    if all((options.root / split).is_dir() for split in SPLITS):
        parts = {split: _read(options.root, split) for split in SPLITS}
        _check_disjoint(parts)
    else:
        parts = images.shares(_read(options.root), options.seed)
    return images.samplers(options, *(parts[split] for split in SPLITS))


def _read(root: Path, split: str = "") -> data.Dataset:
    return data.from_folder(root, size=SIZE, mode="L", split=split)


def _check_disjoint(parts: dict[str, data.Dataset]) -> None:
    for one, other in combinations(parts, 2):
        both = sorted(set(parts[one].classes) & set(parts[other].classes))
        if both:
            raise ValueError(
                f"folder: {len(both)} classes are in {one}/ and in {other}/, the first is "
                f"{both[0]}; expected other classes in each, a test is of new ones"
            )


source(
    name="folder",
    description="images in folders, a class a folder, as greys of 28 x 28; in train/, "
    "validation/, test/ or split by --seed; needs --root",
    kind="classification",
    samplers=_samplers,
    headline=images.HEADLINE,
    draw=images.draw,
    defaults=images.DEFAULTS | {"rotations": False, "jitter": 0.0},
    default_learner="protonet",
    options=(*images.OPTIONS, "root"),
)
