"""Learners that adapt from a labelled source to an unlabelled target."""

from jaxmeta.learners.adaptation.adda import adda as adda
from jaxmeta.learners.adaptation.adversarial_autoencoder import (
    adversarial_autoencoder as adversarial_autoencoder,
)
from jaxmeta.learners.adaptation.cdan import cdan as cdan
from jaxmeta.learners.adaptation.coral import coral as coral
from jaxmeta.learners.adaptation.dann import dann as dann
from jaxmeta.learners.adaptation.deep_coral import deep_coral as deep_coral
from jaxmeta.learners.adaptation.jan import jan as jan
from jaxmeta.learners.adaptation.mcd import mcd as mcd
from jaxmeta.learners.adaptation.mmd import mmd as mmd
from jaxmeta.learners.adaptation.optimal_transport import (
    optimal_transport as optimal_transport,
)
from jaxmeta.learners.adaptation.source_only import source_only as source_only
