"""Many tasks that pull in different directions: their gradients combined by more than a
mean, or their losses weighted by numbers that are learned.

A combiner sees the gradients of the tasks of one meta-step, whichever they are. A weight
belongs to one task, or one kind of tasks, and needs its number: `which(task)` tells it.
"""

from jaxmeta.multitask import combiners as combiners
from jaxmeta.multitask.gradients import task_gradients as task_gradients
from jaxmeta.multitask.gradnorm import gradnorm as gradnorm
from jaxmeta.multitask.uncertainty import uncertainty_weighting as uncertainty_weighting
