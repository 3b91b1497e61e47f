"""A-GEM: a step that does not raise the mean loss of what is remembered.

Chaudhry, Ranzato, Rohrbach, Elhoseiny. Efficient Lifelong Learning with A-GEM. ICLR 2019,
arXiv 1812.00420. With g the gradient of a minibatch and g_ref that of one drawn from the
memory of earlier parts (eq. 11),

    descend g, or where g'g_ref < 0:  g - (g'g_ref / g_ref'g_ref) g_ref

Departures: the memory is one reservoir of all earlier parts, where the paper keeps as many
examples of each; within a part nothing is added to it.
"""

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.boundary import entered, remembered
from jaxmeta.continual import online
from jaxmeta.continual.memory import begun, recalled, remembering
from jaxmeta.types import Model, Online, PyTree


def projected(g: PyTree, reference: PyTree) -> PyTree:
    """g without what goes against the reference, if anything does; trees alike.

    >>> import numpy as np
    >>> g, up = np.array([1.0, -2.0]), np.array([0.0, 1.0])
    >>> projected(g, up).tolist(), projected(-g, up).tolist()
    ([1.0, 0.0], [-1.0, 2.0])
    """
    dot = lambda a, b: jnp.asarray(optax.tree.vdot(a, b))
    along, length = dot(g, reference), dot(reference, reference)
    against = along < 0  # False where there is no reference: it is NaN then
    factor = along / jnp.where(against, length, 1)
    less = lambda g, r: jnp.where(against, g - factor * r, g)
    return jax.tree.map(less, g, reference)


@remembered
def agem(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    memory: int = 200,
    recall: int = 64,
    loss: losses.Loss = losses.cross_entropy,
) -> Online:
    """A-GEM; `end` puts a part's examples into the memory.

    Args:
        model: the network. optimizer: of its parameters.
        memory: examples that are kept. recall: of them, for the reference gradient.
        loss: of one example.

    Returns: an `Online`; its metric `conflict` is 1 where a step was projected.
    Raises: ValueError for a memory below 1, or a recall of more examples than are kept.
    """
    online.check_parts(model, optimizer, loss)
    checks.check_sizes(memory=memory)
    checks.check_sizes(1, memory, recall=recall)
    batch_loss = online.batch_loss(model, loss)

    def observe(state, batch, key):
        value, g = jax.value_and_grad(batch_loss)(state.params, batch)
        old = recalled(state.memory, recall, key)
        reference = jax.grad(batch_loss)(state.params, old)
        conflict = jnp.asarray(optax.tree.vdot(g, reference)) < 0
        after = online.stepped(optimizer, state, projected(g, reference))
        return after, {"loss": value, "conflict": conflict.astype(value.dtype)}

    def end(state, part, key):
        part = part._replace(x=entered(part.x))
        return state._replace(memory=remembering(state.memory, part, key))

    return Online(
        begun(model.init, optimizer, memory), observe, online.by_network(model), end
    )
