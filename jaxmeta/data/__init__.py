"""Data sets: where arrays come from."""

from jaxmeta.data.cifar100 import cifar_fs as cifar_fs
from jaxmeta.data.cifar100 import fc100 as fc100
from jaxmeta.data.cub import cub as cub
from jaxmeta.data.dataset import Dataset as Dataset
from jaxmeta.data.dataset import from_arrays as from_arrays
from jaxmeta.data.dataset import from_records as from_records
from jaxmeta.data.dataset import joined as joined
from jaxmeta.data.folder import from_folder as from_folder
from jaxmeta.data.glyphs import glyphs as glyphs
from jaxmeta.data.huggingface import from_huggingface as from_huggingface
from jaxmeta.data.mini_imagenet import mini_imagenet as mini_imagenet
from jaxmeta.data.omniglot import omniglot as omniglot
from jaxmeta.data.table import from_csv as from_csv
from jaxmeta.data.table import from_parquet as from_parquet
from jaxmeta.data.tfds import from_tfds as from_tfds
from jaxmeta.data.tiered_imagenet import tiered_imagenet as tiered_imagenet
