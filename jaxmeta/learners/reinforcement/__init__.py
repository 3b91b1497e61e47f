"""Learners of tasks that one acts in: what is learned from is what was done."""

from jaxmeta.learners.reinforcement import memories as memories
from jaxmeta.learners.reinforcement import surrogates as surrogates
from jaxmeta.learners.reinforcement.e_maml import e_maml as e_maml
from jaxmeta.learners.reinforcement.maml_rl import maml_rl as maml_rl
from jaxmeta.learners.reinforcement.policy_gradient import (
    policy_gradient as policy_gradient,
)
from jaxmeta.learners.reinforcement.promp import promp as promp
from jaxmeta.learners.reinforcement.rl2 import rl2 as rl2
from jaxmeta.learners.reinforcement.trpo import trpo as trpo
