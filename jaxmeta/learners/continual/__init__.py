"""Learners that adapt to a stream: its examples one by one, in their order."""

from jaxmeta.learners.continual.anml import anml as anml
from jaxmeta.learners.continual.la_maml import asynchronous as asynchronous
from jaxmeta.learners.continual.la_maml import la_maml as la_maml
from jaxmeta.learners.continual.oml import oml as oml
