"""Learners whose `adapt` is an inner optimisation on the support loss."""

from jaxmeta.learners.gradient.alfa import alfa as alfa
from jaxmeta.learners.gradient.anil import anil as anil
from jaxmeta.learners.gradient.bmaml import bmaml as bmaml
from jaxmeta.learners.gradient.boil import boil as boil
from jaxmeta.learners.gradient.bootstrapped import bootstrapped as bootstrapped
from jaxmeta.learners.gradient.cavia import cavia as cavia
from jaxmeta.learners.gradient.halting_maml import halting_maml as halting_maml
from jaxmeta.learners.gradient.imaml import imaml as imaml
from jaxmeta.learners.gradient.learned_optimizer import (
    learned_optimizer as learned_optimizer,
)
from jaxmeta.learners.gradient.learned_optimizer import lstm_optimizer as lstm_optimizer
from jaxmeta.learners.gradient.learned_rule import learned_rule as learned_rule
from jaxmeta.learners.gradient.leo import leo as leo
from jaxmeta.learners.gradient.lstm_meta_learner import (
    lstm_meta_learner as lstm_meta_learner,
)
from jaxmeta.learners.gradient.maml import fomaml as fomaml
from jaxmeta.learners.gradient.maml import maml as maml
from jaxmeta.learners.gradient.maml_plus_plus import maml_plus_plus as maml_plus_plus
from jaxmeta.learners.gradient.meta_curvature import meta_curvature as meta_curvature
from jaxmeta.learners.gradient.meta_sgd import meta_sgd as meta_sgd
from jaxmeta.learners.gradient.mtl import mtl as mtl
from jaxmeta.learners.gradient.protomaml import protomaml as protomaml
from jaxmeta.learners.gradient.proximal import proximal as proximal
from jaxmeta.learners.gradient.reptile import reptile as reptile
from jaxmeta.learners.gradient.tnet import tnet as tnet
from jaxmeta.learners.gradient.warpgrad import warpgrad as warpgrad
