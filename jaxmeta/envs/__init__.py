"""Environments as pure functions of one task."""

from jaxmeta.envs import baselines as baselines
from jaxmeta.envs.agent import Agent as Agent
from jaxmeta.envs.bandit import bandit as bandit
from jaxmeta.envs.corners import corners as corners
from jaxmeta.envs.dark_room import dark_room as dark_room
from jaxmeta.envs.env import Box as Box
from jaxmeta.envs.env import Discrete as Discrete
from jaxmeta.envs.env import Env as Env
from jaxmeta.envs.grid import grid as grid
from jaxmeta.envs.gymnasium_adapter import from_gymnasium as from_gymnasium
from jaxmeta.envs.gymnax_adapter import from_gymnax as from_gymnax
from jaxmeta.envs.navigation import navigation as navigation
from jaxmeta.envs.semicircle import semicircle as semicircle
from jaxmeta.envs.tabular import tabular as tabular
from jaxmeta.envs.told import told as told
