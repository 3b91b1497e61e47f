"""Learners of tasks that one acts in: what is learned from is what was done."""

from jaxmeta.learners.reinforcement.rl2 import rl2 as rl2
