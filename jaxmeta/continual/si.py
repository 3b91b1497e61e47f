"""Synaptic intelligence: how much each weight lowered the loss, along the way.

Zenke, Poole, Ganguli. Continual Learning Through Synaptic Intelligence. ICML 2017, arXiv
1703.04200. Within a part, whose start is theta*, each step adds to a path integral

    omega <- omega - (gradient of L) o (step)                        (eq. 3)

whose sum over the weights is the fall of L. Where the part ends,

    Omega <- Omega + omega / ((theta - theta*)^2 + xi),  at least 0   (eq. 5)
    descend  L(theta) + c sum_k Omega_k (theta_k - theta*_k)^2       (eq. 4)

"At least 0" is the authors' code, not the paper: a negative Omega would push.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.boundary import remembered
from jaxmeta.continual import online
from jaxmeta.types import Model, Online, PyTree


class SIState(NamedTuple):
    """Besides the network, trees like its parameters."""

    params: PyTree
    opt_state: Any
    anchor: PyTree  # theta*
    path: PyTree  # omega, of this part
    weight: PyTree  # Omega


@remembered
def si(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    strength: float = 0.1,
    xi: float = 1e-3,
    loss: losses.Loss = losses.cross_entropy,
) -> Online:
    """Synaptic intelligence; `end` turns path integrals into weights of a penalty.

    Args:
        model: the network. optimizer: of its parameters.
        strength: c. xi: what a weight that hardly moved is divided by.
        loss: of one example.

    Returns: an `Online`; `path` of its state are the integrals of the part so far.
    Raises: ValueError for a negative strength, or a xi that is not positive.
    """
    online.check_parts(model, optimizer, loss)
    checks.check_numbers(least=0, strength=strength)
    checks.check_positive(xi=xi)
    batch_loss = online.batch_loss(model, loss)

    def init(key, batch):
        del batch
        params, opt_state = online.begun(model.init, optimizer, key)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SIState(params, opt_state, params, zeros, zeros)

    def observe(state, batch, key):
        del key  # deterministic
        value, g = jax.value_and_grad(batch_loss)(state.params, batch)
        pulled = lambda g, omega, w, w0: g + 2 * strength * omega * (w - w0)
        whole = jax.tree.map(pulled, g, state.weight, state.params, state.anchor)
        after = online.stepped(optimizer, state, whole)
        along = lambda path, g, new, old: path - g * (new - old)
        path = jax.tree.map(along, state.path, g, after.params, state.params)
        return after._replace(path=path), {"loss": value}

    def end(state, part, key):
        del part, key

        def heavier(omega, path, w, w0):
            return jnp.maximum(omega + path / (jnp.square(w - w0) + xi), 0)

        weight = jax.tree.map(
            heavier, state.weight, state.path, state.params, state.anchor
        )
        path = jax.tree.map(jnp.zeros_like, state.path)
        return state._replace(anchor=state.params, path=path, weight=weight)

    return Online(init, observe, online.by_network(model), end)
