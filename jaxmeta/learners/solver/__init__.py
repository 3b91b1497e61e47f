"""Learners that embed, and solve a convex problem on the support set."""

from jaxmeta.learners.solver.alpaca import alpaca as alpaca
from jaxmeta.learners.solver.lrd2 import lrd2 as lrd2
from jaxmeta.learners.solver.metaoptnet import metaoptnet as metaoptnet
from jaxmeta.learners.solver.r2d2 import r2d2 as r2d2
