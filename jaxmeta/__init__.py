"""jaxmeta: functional meta-learning in JAX.

A meta-learner is four pure functions of one task (`init`, `adapt`, `predict`, `loss`);
everything else is a transformation of them.
"""

from jaxmeta import continual as continual
from jaxmeta import data as data
from jaxmeta import envs as envs
from jaxmeta import learners as learners
from jaxmeta import losses as losses
from jaxmeta import metrics as metrics
from jaxmeta import models as models
from jaxmeta import tasks as tasks
from jaxmeta import testing as testing
from jaxmeta import transfer as transfer
from jaxmeta.adjoints import FirstOrder as FirstOrder
from jaxmeta.adjoints import Forward as Forward
from jaxmeta.adjoints import Implicit as Implicit
from jaxmeta.adjoints import MixedMode as MixedMode
from jaxmeta.adjoints import Reverse as Reverse
from jaxmeta.adjoints import Truncated as Truncated
from jaxmeta.averages import ema as ema
from jaxmeta.averages import mean_teacher as mean_teacher
from jaxmeta.averages import swa as swa
from jaxmeta.averages import taught as taught
from jaxmeta.bilevel import Solution as Solution
from jaxmeta.bilevel import bilevel as bilevel
from jaxmeta.compress import Int8 as Int8
from jaxmeta.compress import from_int8 as from_int8
from jaxmeta.compress import prune as prune
from jaxmeta.compress import to_int8 as to_int8
from jaxmeta.compress import zeros_stay as zeros_stay
from jaxmeta.estimators import PES as PES
from jaxmeta.estimators import Unroll as Unroll
from jaxmeta.estimators import es_gradient as es_gradient
from jaxmeta.estimators import pes as pes
from jaxmeta.estimators import pes_outer as pes_outer
from jaxmeta.fixed_point import fixed_point as fixed_point
from jaxmeta.hosted import collect as collect
from jaxmeta.inner import FixedPoint as FixedPoint
from jaxmeta.learners.adaptation import *
from jaxmeta.learners.amortized import *
from jaxmeta.learners.continual import *
from jaxmeta.learners.gradient import *
from jaxmeta.learners.metric import *
from jaxmeta.learners.recommendation import *
from jaxmeta.learners.reinforcement import *
from jaxmeta.learners.solver import *
from jaxmeta.learners.transductive import *
from jaxmeta.loading import load as load
from jaxmeta.multitask import combiners as combiners
from jaxmeta.multitask import gradnorm as gradnorm
from jaxmeta.multitask import task_gradients as task_gradients
from jaxmeta.multitask import uncertainty_weighting as uncertainty_weighting
from jaxmeta.noise import with_noise as with_noise
from jaxmeta.online_bilevel import OnlineState as OnlineState
from jaxmeta.online_bilevel import online_bilevel as online_bilevel
from jaxmeta.outer import MetaState as MetaState
from jaxmeta.outer import init_state as init_state
from jaxmeta.outer import make_outer as make_outer
from jaxmeta.outer import make_step as make_step
from jaxmeta.outer import meta_gradient as meta_gradient
from jaxmeta.outer import meta_loss as meta_loss
from jaxmeta.outer import sample_tasks as sample_tasks
from jaxmeta.rollouts import Agent as Agent
from jaxmeta.rollouts import Rollouts as Rollouts
from jaxmeta.statistics import with_support_statistics as with_support_statistics
from jaxmeta.training import Best as Best
from jaxmeta.training import Checkpoints as Checkpoints
from jaxmeta.training import Curve as Curve
from jaxmeta.training import DivergenceError as DivergenceError
from jaxmeta.training import Log as Log
from jaxmeta.training import Report as Report
from jaxmeta.training import curve as curve
from jaxmeta.training import evaluate as evaluate
from jaxmeta.training import evaluate_episodes as evaluate_episodes
from jaxmeta.training import evaluate_returns as evaluate_returns
from jaxmeta.training import fit as fit
from jaxmeta.training import fit_population as fit_population
from jaxmeta.training import pooled as pooled
from jaxmeta.training import population as population
from jaxmeta.training import report_returns as report_returns
from jaxmeta.training import scores as scores
from jaxmeta.types import Batch as Batch
from jaxmeta.types import MetaLearner as MetaLearner
from jaxmeta.types import Model as Model
from jaxmeta.types import Online as Online
from jaxmeta.types import Outer as Outer
from jaxmeta.types import Task as Task
