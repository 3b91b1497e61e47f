"""Learners whose prediction also uses the other inputs that it is asked with."""

from jaxmeta.learners.transductive.bd_cspn import bd_cspn as bd_cspn
from jaxmeta.learners.transductive.label_propagation import (
    label_propagation as label_propagation,
)
from jaxmeta.learners.transductive.laplacian_shot import (
    laplacian_shot as laplacian_shot,
)
from jaxmeta.learners.transductive.pt_map import pt_map as pt_map
from jaxmeta.learners.transductive.tim import tim as tim
from jaxmeta.learners.transductive.transductive_finetuning import (
    transductive_finetuning as transductive_finetuning,
)
