"""Experience replay from a small memory.

Chaudhry, Rohrbach, Elhoseiny, Ajanthan, Dokania, Torr, Ranzato. On Tiny Episodic Memories
in Continual Learning. 2019, arXiv 1902.10486, with reservoir sampling: each step descends
the loss of a minibatch of the stream joined with one of the memory, then the first goes
into the memory.
"""

import jax
import optax

from jaxmeta import checks, losses
from jaxmeta.batches import concatenate
from jaxmeta.boundary import entered, remembered
from jaxmeta.continual import online
from jaxmeta.continual.memory import begun, recalled, remembering
from jaxmeta.types import Model, Online


@remembered
def replay(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    memory: int = 200,
    replayed: int = 10,
    loss: losses.Loss = losses.cross_entropy,
) -> Online:
    """Replay from a reservoir; it need not know where parts end.

    Args:
        model: the network. optimizer: of its parameters.
        memory: examples that are kept. replayed: of them, in each step.
        loss: of one example.

    Returns: an `Online`. Raises: ValueError for a memory below 1 (`plain` has none), or
        more replayed examples than are kept.
    """
    online.check_parts(model, optimizer, loss)
    checks.check_sizes(memory=memory)
    checks.check_sizes(1, memory, replayed=replayed)
    batch_loss = online.batch_loss(model, loss)

    def observe(state, batch, key):
        key_recall, key_remember = jax.random.split(key)
        batch = batch._replace(x=entered(batch.x))
        old = recalled(state.memory, replayed, key_recall)
        joined = concatenate(batch, old)
        value, g = jax.value_and_grad(batch_loss)(state.params, joined)
        after = online.stepped(optimizer, state, g)
        kept = remembering(state.memory, batch, key_remember)
        return after._replace(memory=kept), {"loss": value}

    return Online(
        begun(model.init, optimizer, memory), observe, online.by_network(model)
    )
