"""Data sets: where arrays come from."""

from jaxmeta.data.dataset import Dataset as Dataset
from jaxmeta.data.dataset import from_arrays as from_arrays
from jaxmeta.data.dataset import joined as joined
from jaxmeta.data.glyphs import glyphs as glyphs
from jaxmeta.data.omniglot import omniglot as omniglot
from jaxmeta.data.tfds import from_tfds as from_tfds
