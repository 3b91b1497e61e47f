"""Agents that learn from rewards: `adapt` turns episodes of a task into a better policy."""

from jaxmeta.learners.reinforcement.rl2 import rl2 as rl2
