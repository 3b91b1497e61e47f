"""Omniglot, from the folder of its archives.

Lake et al. 2015, Science 350; the split of Vinyals et al. 2016, arXiv 1606.04080.
"""

from jaxmeta import data
from jaxmeta.cli.options import Options
from jaxmeta.cli.sources import images
from jaxmeta.cli.sources.source import source
from jaxmeta.types import Sampler

TRAIN_SPLITS = "background", "small1", "small2"


def _samplers(options: Options) -> dict[str, Sampler]:
    if options.root is None:
        raise ValueError(
            "omniglot: expected --root, the folder with images_background.zip and "
            "images_evaluation.zip (the official archives)"
        )
    splits = ("vinyals_train", "vinyals_validation", "vinyals_test")
    if options.train_split is not None:
        if options.train_split not in TRAIN_SPLITS:
            raise ValueError(
                "train_split: expected background, small1 or small2, got "
                f"{options.train_split!r}"
            )
        splits = (options.train_split, "evaluation", "evaluation")
    root = options.root
    return images.samplers(options, *(data.omniglot(root, s) for s in splits))


source(
    name="omniglot",
    description="1,623 hand-written characters, Vinyals split (or --train-split "
    "background, small1, small2, tested on evaluation); needs --root",
    kind="classification",
    samplers=_samplers,
    headline=images.HEADLINE,
    draw=images.draw,
    defaults=images.DEFAULTS | {"rotations": True, "jitter": 0.0},
    default_learner="protonet",
    options=(*images.OPTIONS, "root", "train_split"),
)
