"""A meta-learner in a stream: learn from a minibatch such that what is remembered stays.

Riemer et al. Learning to Learn without Forgetting by Maximizing Transfer and Minimizing
Interference. ICLR 2019, arXiv 1810.11910; Gupta, Yadav, Paull. La-MAML. NeurIPS 2020, arXiv
2007.13904, algorithm 1. Each minibatch makes a task, on which one meta-step is taken:

    support = the minibatch,  query = the minibatch and examples of a reservoir
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys
from jaxmeta.batches import blank_padding, concatenate
from jaxmeta.boundary import entered, remembered
from jaxmeta.continual import online
from jaxmeta.continual.memory import begun, recalled, remembering
from jaxmeta.types import MetaLearner, Online, PyTree, Task


def _same(params: PyTree) -> PyTree:
    return params


@remembered
def look_ahead(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    memory: int = 200,
    replayed: int = 10,
    glances: int = 1,
    adapted: Callable[[PyTree], PyTree] = _same,
) -> Online:
    """Meta-steps along a stream, over a memory of it; it need not know where parts end.

    Args:
        learner: which descends its objective, e.g. `jm.la_maml(model)`.
        optimizer: of its meta-parameters, e.g. `jm.asynchronous()`.
        memory: examples that are kept. replayed: of them, in each query set.
        glances: meta-steps on each minibatch.
        adapted: what the learner predicts with, of its meta-parameters: of `maml` these
            themselves, of `la_maml` `lambda params: params.theta`.

    Returns: an `Online`. Raises: ValueError for a memory below 1, more replayed examples
        than are kept, or glances below 1.
    """
    checks.check_learner(learner)
    checks.check_optimizer(optimizer)
    checks.check_sizes(memory=memory, glances=glances)
    checks.check_sizes(1, memory, replayed=replayed)
    checks.check_functions(adapted=adapted)

    def value_of(params, task, key):
        if learner.objective is None:
            return learner.loss(params, task, key)
        return learner.objective(params, task, key, jnp.zeros((), jnp.int32))

    def glance(state, batch, key):
        key_recall, key_loss = jax.random.split(key)
        old = recalled(state.memory, replayed, key_recall)
        task = Task(batch, blank_padding(concatenate(batch, old)))
        slope = jax.value_and_grad(value_of, has_aux=True)
        (value, _), g = slope(state.params, task, key_loss)
        return online.stepped(optimizer, state, g), value

    def observe(state, batch, key):
        key_glances, key_remember = jax.random.split(key)
        batch = batch._replace(x=entered(batch.x))
        again = lambda s, i: glance(s, batch, keys.fold(key_glances, i))
        state, values = jax.lax.scan(again, state, jnp.arange(glances))
        kept = remembering(state.memory, batch, key_remember)
        return state._replace(memory=kept), {"loss": values[0]}

    def predict(state, inputs):
        return learner.predict(adapted(state.params), entered(inputs))

    return Online(begun(learner.init, optimizer, memory), observe, predict)
