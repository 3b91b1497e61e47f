"""Meta-learners: one method (or close family) a file, all in the same order."""

from jaxmeta.learners.anil import anil as anil
from jaxmeta.learners.cnp import cnp as cnp
from jaxmeta.learners.maml import fomaml as fomaml
from jaxmeta.learners.maml import maml as maml
from jaxmeta.learners.protonet import protonet as protonet
from jaxmeta.learners.r2d2 import r2d2 as r2d2
from jaxmeta.learners.registry import REGISTRY as REGISTRY
from jaxmeta.learners.registry import Entry as Entry
from jaxmeta.learners.registry import get as get
