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
from jaxmeta.adjoints import Forward as Forward
from jaxmeta.adjoints import Implicit as Implicit
from jaxmeta.adjoints import MixedMode as MixedMode
from jaxmeta.adjoints import Reverse as Reverse
from jaxmeta.adjoints import Truncated as Truncated
from jaxmeta.estimators import PES as PES
from jaxmeta.estimators import Unroll as Unroll
from jaxmeta.estimators import es_gradient as es_gradient
from jaxmeta.estimators import pes as pes
from jaxmeta.learners import alfa as alfa
from jaxmeta.learners import anil as anil
from jaxmeta.learners import bmaml as bmaml
from jaxmeta.learners import boil as boil
from jaxmeta.learners import bootstrapped as bootstrapped
from jaxmeta.learners import cavia as cavia
from jaxmeta.learners import cnp as cnp
from jaxmeta.learners import fomaml as fomaml
from jaxmeta.learners import imaml as imaml
from jaxmeta.learners import learned_optimizer as learned_optimizer
from jaxmeta.learners import learned_rule as learned_rule
from jaxmeta.learners import leo as leo
from jaxmeta.learners import lstm_meta_learner as lstm_meta_learner
from jaxmeta.learners import lstm_optimizer as lstm_optimizer
from jaxmeta.learners import maml as maml
from jaxmeta.learners import maml_plus_plus as maml_plus_plus
from jaxmeta.learners import meta_curvature as meta_curvature
from jaxmeta.learners import meta_sgd as meta_sgd
from jaxmeta.learners import mtl as mtl
from jaxmeta.learners import protomaml as protomaml
from jaxmeta.learners import protonet as protonet
from jaxmeta.learners import proximal as proximal
from jaxmeta.learners import r2d2 as r2d2
from jaxmeta.learners import reptile as reptile
from jaxmeta.learners import tnet as tnet
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
