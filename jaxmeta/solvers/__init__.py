"""Convex problems with a derivative, for learners that solve one in each task."""

from jaxmeta.solvers.logistic import logistic as logistic
from jaxmeta.solvers.positive import minimum as minimum
from jaxmeta.solvers.ridge import ridge as ridge
from jaxmeta.solvers.sinkhorn import sinkhorn as sinkhorn
from jaxmeta.solvers.svm import svm_dual as svm_dual
