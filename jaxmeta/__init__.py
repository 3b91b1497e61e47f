"""jaxmeta: functional meta-learning in JAX.

A meta-learner is four pure functions of one task (`init`, `adapt`, `predict`, `loss`);
everything else is a transformation of them.
"""

from jaxmeta import baselines as baselines
from jaxmeta import data as data
from jaxmeta import learners as learners
from jaxmeta import losses as losses
from jaxmeta import models as models
from jaxmeta import tasks as tasks
from jaxmeta.adjoints import FirstOrder as FirstOrder
from jaxmeta.adjoints import MixedMode as MixedMode
from jaxmeta.adjoints import Reverse as Reverse
from jaxmeta.learners import anil as anil
from jaxmeta.learners import cnp as cnp
from jaxmeta.learners import fomaml as fomaml
from jaxmeta.learners import maml as maml
from jaxmeta.learners import protonet as protonet
from jaxmeta.learners import r2d2 as r2d2
from jaxmeta.outer import MetaState as MetaState
from jaxmeta.outer import init_state as init_state
from jaxmeta.outer import make_step as make_step
from jaxmeta.outer import meta_gradient as meta_gradient
from jaxmeta.outer import meta_loss as meta_loss
from jaxmeta.outer import sample_tasks as sample_tasks
from jaxmeta.training import Checkpoints as Checkpoints
from jaxmeta.training import Log as Log
from jaxmeta.training import Report as Report
from jaxmeta.training import evaluate as evaluate
from jaxmeta.training import fit as fit
from jaxmeta.training import fit_population as fit_population
from jaxmeta.types import Batch as Batch
from jaxmeta.types import MetaLearner as MetaLearner
from jaxmeta.types import Model as Model
from jaxmeta.types import Task as Task
