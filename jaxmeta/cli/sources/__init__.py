"""The problems: each file says all of one, and is listed in `SOURCES` by being imported."""

from jaxmeta.cli.sources import bandit as bandit
from jaxmeta.cli.sources import csv as csv
from jaxmeta.cli.sources import digits as digits
from jaxmeta.cli.sources import folder as folder
from jaxmeta.cli.sources import gaussian_process as gaussian_process
from jaxmeta.cli.sources import glyphs as glyphs
from jaxmeta.cli.sources import goals as goals
from jaxmeta.cli.sources import grid as grid
from jaxmeta.cli.sources import harmonics as harmonics
from jaxmeta.cli.sources import omniglot as omniglot
from jaxmeta.cli.sources import ratings as ratings
from jaxmeta.cli.sources import sinusoid as sinusoid
from jaxmeta.cli.sources import tabular_mdp as tabular_mdp
from jaxmeta.cli.sources.source import SOURCES as SOURCES
from jaxmeta.cli.sources.source import Source as Source

DEFAULT = "glyphs"
