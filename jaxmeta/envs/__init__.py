"""Environments as pure functions of one task."""

from jaxmeta.envs.bandit import bandit as bandit
from jaxmeta.envs.env import Box as Box
from jaxmeta.envs.env import Discrete as Discrete
from jaxmeta.envs.env import Env as Env
