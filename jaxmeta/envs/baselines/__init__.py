"""What can be known without learning: exact optima of environments, and agents that
know the prior, to compare a meta-learner with."""

from jaxmeta.envs.baselines.bandit_optimum import bandit_optimum as bandit_optimum
