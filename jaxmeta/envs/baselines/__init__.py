"""What can be known without learning: exact optima of environments, and agents that
know the prior, to compare a meta-learner with."""

from jaxmeta.envs.baselines.bandit_agents import gittins as gittins
from jaxmeta.envs.baselines.bandit_agents import greedy as greedy
from jaxmeta.envs.baselines.bandit_agents import random_arm as random_arm
from jaxmeta.envs.baselines.bandit_agents import thompson as thompson
from jaxmeta.envs.baselines.bandit_agents import ucb1 as ucb1
from jaxmeta.envs.baselines.bandit_optimum import bandit_optimum as bandit_optimum
from jaxmeta.envs.baselines.gittins import gittins_indices as gittins_indices
from jaxmeta.envs.baselines.grid_optimum import first_episode as first_episode
from jaxmeta.envs.baselines.grid_optimum import grid_optimum as grid_optimum
from jaxmeta.envs.baselines.grid_optimum import known_goal as known_goal
from jaxmeta.envs.baselines.grid_sampling import (
    grid_posterior_sampling as grid_posterior_sampling,
)
from jaxmeta.envs.baselines.planning import psrl as psrl
from jaxmeta.envs.baselines.planning import value_iteration as value_iteration
from jaxmeta.envs.baselines.reactive_agents import glider as glider
from jaxmeta.envs.baselines.reactive_agents import random_action as random_action
from jaxmeta.envs.baselines.reactive_agents import reactive as reactive
from jaxmeta.envs.baselines.reactive_agents import still as still
from jaxmeta.envs.baselines.reactive_agents import walker as walker
