"""Elastic weight consolidation: weights that mattered are held where they were.

Kirkpatrick et al. Overcoming Catastrophic Forgetting in Neural Networks. PNAS 2017, arXiv
1612.00796; in its online form, one anchor and one matrix for all parts: Schwarz et al.
Progress & Compress. ICML 2018, arXiv 1805.06370, section 3.2. With theta* the end of the
part before,

    descend  L(theta) + lambda / 2 (theta - theta*)' F (theta - theta*)
    F <- gamma F + F_part(theta*)                     (where a part ends)

F_part is the mean Fisher information of the part's examples, J' Lambda J with J the
derivative of the outputs and Lambda the second derivative of the loss in them: for
cross-entropy and squared errors the expectation over the labels is taken exactly, nothing
is drawn. `full` keeps the matrix: for a linear network and squared errors (no factor, so
twice the Hessian of a unit Gaussian), parts of one size, lambda and gamma 1, each end is
then the solution of all parts together. Else it is its diagonal, as in the papers.

Departures: the authors' code (and most others) draws labels or takes the true ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta import checks, losses
from jaxmeta.batches import examples, forward
from jaxmeta.boundary import entered, remembered
from jaxmeta.continual import online
from jaxmeta.types import Batch, Model, Online, PyTree


class EWCState(NamedTuple):
    """Besides the network: what holds it."""

    params: PyTree
    opt_state: Any
    anchor: jax.Array  # [n] theta*
    fisher: jax.Array  # [n, n], or its diagonal [n]


@remembered
def ewc(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    strength: float = 1.0,
    decay: float = 1.0,
    full: bool = False,
    loss: losses.Loss = losses.cross_entropy,
) -> Online:
    """Online EWC; `end` measures the Fisher information of a part.

    Args:
        model: the network, of n parameters. optimizer: of its parameters.
        strength: lambda, of means over examples: published values are of sums.
        decay: gamma, in (0, 1]: 1 forgets no part.
        full: keep the matrix F, of n x n numbers, in place of its diagonal.
        loss: of one example.

    Returns: an `Online`. Raises: ValueError for a negative strength, or a decay that is
        not in (0, 1].
    """
    online.check_parts(model, optimizer, loss)
    checks.check_numbers(least=0, strength=strength)
    checks.check_numbers(above=0, most=1, decay=decay)
    checks.check_flags(full=full)
    batch_loss = online.batch_loss(model, loss)

    def init(key, batch):
        del batch
        params, opt_state = online.begun(model.init, optimizer, key)
        anchor = ravel_pytree(params)[0]
        shape = (anchor.size, anchor.size) if full else anchor.shape
        return EWCState(params, opt_state, anchor, jnp.zeros(shape, anchor.dtype))

    def objective(params, state, batch):
        moved = ravel_pytree(params)[0] - state.anchor
        pull = state.fisher @ moved if full else state.fisher * moved
        value = batch_loss(params, batch)
        return value + strength / 2 * jnp.dot(moved, pull), value

    def observe(state, batch, key):
        del key  # deterministic
        slope = jax.grad(objective, has_aux=True)
        g, value = slope(state.params, state, batch)
        return online.stepped(optimizer, state, g), {"loss": value}

    def end(state, part, key):
        del key
        more = fisher_information(model, loss, state.params, part, full)
        anchor = ravel_pytree(state.params)[0]
        return state._replace(anchor=anchor, fisher=decay * state.fisher + more)

    return Online(init, observe, online.by_network(model), end)


def fisher_information(
    model: Model, loss: losses.Loss, params: PyTree, batch: Batch, full: bool
) -> jax.Array:
    """The mean of J' Lambda J over the examples that count, example by example.

    Returns: [n, n], or its diagonal [n]. A network that normalises by its batch sees each
        example alone.
    """
    theta, unravel = ravel_pytree(params)
    x, n = entered(batch.x), examples(batch)
    counts = jnp.ones(n, bool) if batch.mask is None else batch.mask > 0
    single = lambda row: jax.tree.map(lambda a: a[None], row)
    sides = "ap,ab,bq->pq" if full else "ap,ab,bp->p"

    def add(total, row):
        x, y, count = row
        outputs = lambda theta: forward(model, unravel(theta), single(x))[0]
        value = lambda z: jnp.mean(loss(z[None], single(y)))
        j, z = jax.jacrev(outputs)(theta), outputs(theta)
        found = jnp.einsum(sides, j, jax.hessian(value)(z), j)
        return total + jnp.where(count, found, 0).astype(total.dtype), None

    zeros = jnp.zeros((theta.size,) * (2 if full else 1), theta.dtype)
    total, _ = jax.lax.scan(add, zeros, (x, batch.y, counts))
    return total / jnp.sum(counts).astype(theta.dtype)
