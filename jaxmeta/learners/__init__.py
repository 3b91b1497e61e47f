"""The meta-learners: one method a file, a folder a family, listed in `REGISTRY`."""
# isort: skip_file
# the order of the families is that of every list

from jaxmeta.learners.gradient import *
from jaxmeta.learners.metric import *
from jaxmeta.learners.solver import *
from jaxmeta.learners.amortized import *
from jaxmeta.learners.transductive import *
from jaxmeta.learners.reinforcement import *
from jaxmeta.learners.adaptation import *
from jaxmeta.learners.continual import *
from jaxmeta.learners.recommendation import *

from jaxmeta.learners.objectives import query_loss as query_loss
from jaxmeta.learners.registry import REGISTRY as REGISTRY
from jaxmeta.learners.registry import Entry as Entry
from jaxmeta.learners.registry import Facts as Facts
from jaxmeta.learners.registry import Networks as Networks
from jaxmeta.learners.registry import build as build
from jaxmeta.learners.registry import get as get
from jaxmeta.learners.registry import register as register
