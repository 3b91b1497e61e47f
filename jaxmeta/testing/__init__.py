"""The contract that every learner and every agent keeps, for those of your own."""

from jaxmeta.testing.agents import AGENT_PROMISES as AGENT_PROMISES
from jaxmeta.testing.agents import AgentTrial as AgentTrial
from jaxmeta.testing.agents import check_agent as check_agent
from jaxmeta.testing.learners import PROMISES as PROMISES
from jaxmeta.testing.learners import Trial as Trial
from jaxmeta.testing.learners import check_learner as check_learner
from jaxmeta.testing.learners import double as double
from jaxmeta.testing.learners import gradient_is_the_slope as gradient_is_the_slope
from jaxmeta.testing.learners import largest_difference as largest_difference
from jaxmeta.testing.learners import many_tasks as many_tasks
from jaxmeta.testing.learners import one_task as one_task
from jaxmeta.testing.learners import pad as pad
from jaxmeta.testing.learners import transductive_or_not as transductive_or_not
