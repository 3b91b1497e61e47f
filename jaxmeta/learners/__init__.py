"""Meta-learners: one method (or close family) a file, all in the same order."""

from jaxmeta.learners.alfa import alfa as alfa
from jaxmeta.learners.anil import anil as anil
from jaxmeta.learners.anp import anp as anp
from jaxmeta.learners.baseline import baseline as baseline
from jaxmeta.learners.baseline import baseline_plus_plus as baseline_plus_plus
from jaxmeta.learners.bd_cspn import bd_cspn as bd_cspn
from jaxmeta.learners.bmaml import bmaml as bmaml
from jaxmeta.learners.boil import boil as boil
from jaxmeta.learners.bootstrapped import bootstrapped as bootstrapped
from jaxmeta.learners.cavia import cavia as cavia
from jaxmeta.learners.cnp import Gaussian as Gaussian
from jaxmeta.learners.cnp import cnp as cnp
from jaxmeta.learners.deepemd import deepemd as deepemd
from jaxmeta.learners.feat import feat as feat
from jaxmeta.learners.imaml import imaml as imaml
from jaxmeta.learners.in_context import in_context as in_context
from jaxmeta.learners.label_propagation import label_propagation as label_propagation
from jaxmeta.learners.laplacian_shot import laplacian_shot as laplacian_shot
from jaxmeta.learners.learned_optimizer import learned_optimizer as learned_optimizer
from jaxmeta.learners.learned_optimizer import lstm_optimizer as lstm_optimizer
from jaxmeta.learners.learned_rule import learned_rule as learned_rule
from jaxmeta.learners.leo import leo as leo
from jaxmeta.learners.lrd2 import lrd2 as lrd2
from jaxmeta.learners.lstm_meta_learner import lstm_meta_learner as lstm_meta_learner
from jaxmeta.learners.maml import fomaml as fomaml
from jaxmeta.learners.maml import maml as maml
from jaxmeta.learners.maml_plus_plus import maml_plus_plus as maml_plus_plus
from jaxmeta.learners.mann import mann as mann
from jaxmeta.learners.matching import matching as matching
from jaxmeta.learners.meta_baseline import meta_baseline as meta_baseline
from jaxmeta.learners.meta_curvature import meta_curvature as meta_curvature
from jaxmeta.learners.meta_sgd import meta_sgd as meta_sgd
from jaxmeta.learners.metaoptnet import metaoptnet as metaoptnet
from jaxmeta.learners.mtl import mtl as mtl
from jaxmeta.learners.neural_process import neural_process as neural_process
from jaxmeta.learners.protomaml import protomaml as protomaml
from jaxmeta.learners.protonet import protonet as protonet
from jaxmeta.learners.proximal import proximal as proximal
from jaxmeta.learners.pt_map import pt_map as pt_map
from jaxmeta.learners.r2d2 import r2d2 as r2d2
from jaxmeta.learners.registry import REGISTRY as REGISTRY
from jaxmeta.learners.registry import Entry as Entry
from jaxmeta.learners.registry import get as get
from jaxmeta.learners.relation import relation as relation
from jaxmeta.learners.reptile import reptile as reptile
from jaxmeta.learners.siamese import siamese as siamese
from jaxmeta.learners.simpleshot import simpleshot as simpleshot
from jaxmeta.learners.snail import snail as snail
from jaxmeta.learners.soft_kmeans import soft_kmeans as soft_kmeans
from jaxmeta.learners.tim import tim as tim
from jaxmeta.learners.tnet import tnet as tnet
from jaxmeta.learners.tnpd import tnpd as tnpd
from jaxmeta.learners.transductive_finetuning import (
    transductive_finetuning as transductive_finetuning,
)
from jaxmeta.learners.versa import versa as versa
