"""Learners in which a network reads the support set."""

from jaxmeta.learners.amortized.anp import anp as anp
from jaxmeta.learners.amortized.cnp import cnp as cnp
from jaxmeta.learners.amortized.in_context import in_context as in_context
from jaxmeta.learners.amortized.mann import mann as mann
from jaxmeta.learners.amortized.neural_process import neural_process as neural_process
from jaxmeta.learners.amortized.snail import snail as snail
from jaxmeta.learners.amortized.tnpd import tnpd as tnpd
from jaxmeta.learners.amortized.versa import versa as versa
from jaxmeta.learners.gaussian import Gaussian as Gaussian
