"""What the methods for streams share: a network, its loss, a step of the optimiser."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxmeta import checks, losses
from jaxmeta.batches import blank_padding, forward
from jaxmeta.boundary import entered
from jaxmeta.types import Batch, InitFn, Model, PyTree


def check_parts(model: Model, optimizer: optax.GradientTransformation, loss) -> None:
    """Raise ValueError unless they are a network, an optimiser and a function."""
    checks.check_models(model=model)
    checks.check_optimizer(optimizer)
    checks.check_functions(loss=loss)


def batch_loss(model: Model, loss: losses.Loss) -> Callable[[PyTree, Batch], jax.Array]:
    """(params, batch) -> the mean loss of the examples that count, []."""

    def value(params, batch):
        batch = blank_padding(batch)
        outputs = forward(model, params, entered(batch.x), batch.mask)
        return losses.mean_loss(loss, outputs, batch)

    return value


def begun(
    init: InitFn, optimizer: optax.GradientTransformation, key: jax.Array
) -> tuple[PyTree, Any]:
    """First parameters, and the optimiser's state."""
    params = init(key)
    return params, optimizer.init(params)


def stepped(optimizer: optax.GradientTransformation, state: Any, g: PyTree) -> Any:
    """The state (with `params` and `opt_state`) after one step against g."""
    updates, opt_state = optimizer.update(g, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, opt_state=opt_state)


def by_network(model: Model) -> Callable[[Any, PyTree], Any]:
    """predict of a state whose `params` are the network's."""

    def predict(state, inputs):
        return forward(model, state.params, entered(inputs))

    return predict
