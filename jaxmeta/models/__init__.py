"""Networks as `Model`s. A learner needs only `Model`, so any of them can be swapped.

Ours are plain functions of dicts of arrays, one network a file; a user's own comes through
an adapter. Flax is imported when one of its modules is adapted, not when jaxmeta is.
"""

from collections.abc import Callable

from jaxmeta.models.adapters import from_functions as from_functions
from jaxmeta.models.adapters import from_linen as from_linen
from jaxmeta.models.adapters import from_nnx as from_nnx
from jaxmeta.models.adapters import pretrained as pretrained
from jaxmeta.models.attention import check_heads as check_heads
from jaxmeta.models.conv4 import conv4 as conv4
from jaxmeta.models.mlp import mlp as mlp
from jaxmeta.models.precision import computed_in as computed_in
from jaxmeta.models.rater import rater as rater
from jaxmeta.models.reader import ReaderModel as ReaderModel
from jaxmeta.models.reader import reader as reader
from jaxmeta.models.relation_module import relation_module as relation_module
from jaxmeta.models.resnet12 import resnet12 as resnet12
from jaxmeta.models.sets import cross_attention as cross_attention
from jaxmeta.models.sets import set_encoder as set_encoder
from jaxmeta.models.transformer import transformer as transformer
from jaxmeta.statistics import normalised_by as normalised_by
from jaxmeta.types import Model

MODELS: dict[str, Callable[..., Model]] = {
    "conv4": conv4,
    "mlp": mlp,
    "resnet12": resnet12,
}
