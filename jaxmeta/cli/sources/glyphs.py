"""Letters of six scripts, drawn from matplotlib's typefaces: needs no download."""

from jaxmeta import data
from jaxmeta.cli.sources import images
from jaxmeta.cli.sources.source import source

source(
    name="glyphs",
    description="letters of six scripts drawn from matplotlib's typefaces; no download",
    kind="classification",
    samplers=lambda options: images.samplers(
        options, *map(data.glyphs, ("train", "validation", "test"))
    ),
    headline=images.HEADLINE,
    draw=images.draw,
    defaults=images.DEFAULTS | {"rotations": False, "jitter": 1.0},
    default_learner="protonet",
    options=images.OPTIONS,
)
