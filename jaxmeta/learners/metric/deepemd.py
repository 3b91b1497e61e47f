"""DeepEMD: the earth mover's distance between feature maps.

Zhang, Cai, Lin, Shen. DeepEMD: Few-Shot Image Classification with Differentiable Earth
Mover's Distance and Structured Classifiers. CVPR 2020, arXiv 2003.06777. With local
features u_i of a query and v_j of a class, positions i and j:

    cost_ij = 1 - cos(u_i - mean u_i, v_j - mean v_j), means over channels (eq. 5)
    s_i = max(u_i . mean_j v_j, 0),  and likewise of v_j, scaled to sum 1 (eq. 7)
    logit = t sum_ij (1 - cost_ij) P_ij,  P the transport of s to s'      (eq. 6)

The centring is in the authors' code, which also adds 0.001 to each s_i before scaling.
For several shots v is learned by gradient steps from the mean map (section 3.6).

Departures:
- P is entropy-regularized (`jaxmeta.solvers.sinkhorn`) in place of the linear program,
  and differentiated through; in the authors' code with one of their two solvers.
- v takes plain steps on the whole support set, and the meta-gradient goes through them;
  in the authors' code 100 rounds of batches of 4, with momentum, and no gradient.

Meta-parameters: those of the encoder.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import MixedMode
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    class_means,
    embed_support,
    mask_absent_classes,
    unit,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.solvers import sinkhorn
from jaxmeta.types import MetaLearner, Model, PyTree


class Maps(NamedTuple):
    """An adapted DeepEMD."""

    encoder: PyTree
    v: jax.Array  # [ways, positions, channels]
    shots: jax.Array  # [ways]


def _positions(z):
    """[n, ..., channels] -> [n, positions, channels]."""
    return jnp.reshape(z, (len(z), -1, z.shape[-1]))


def similarity(u, v, regularization, iterations):
    """Feature maps [positions, channels] each -> their matched similarity []."""

    def masses(a, b):  # a little everywhere, so that no mass is zero
        s = jax.nn.relu(a @ jnp.mean(b, axis=0)) + 1e-3
        return s / jnp.sum(s)

    centred = lambda a: a - jnp.mean(a, axis=1, keepdims=True)
    cosine = unit(centred(u)) @ unit(centred(v)).T
    plan = sinkhorn(
        1 - cosine,
        masses(u, v),
        masses(v, u),
        regularization=regularization,
        iterations=iterations,
    )
    return jnp.sum(cosine * plan)


@register(
    paper="Zhang et al. 2020, arXiv 2003.06777",
    learns=("classification",),
    networks=lambda n: [n.maps()],
    tiny={"iterations": 10, "inner_steps": 1},
)
def deepemd(
    encoder: Model,
    *,
    ways: int = 5,
    temperature: float = 12.5,
    regularization: float = 0.05,
    iterations: int = 30,
    inner_lr: float = 0.1,
    inner_steps: int = 0,
) -> MetaLearner:
    """DeepEMD: match the parts of two images at least cost.

    Args:
        encoder: the encoder, inputs -> feature maps [examples, ..., channels], e.g.
            `conv4(None, pools=2, grid=True)`.
        ways: classes of a task; the parameters do not depend on it.
        temperature: t.
        regularization: of the transport, as in `solvers.sinkhorn`.
        iterations: of it.
        inner_lr: step size of the class maps.
        inner_steps: how many steps they learn on the support set; 0 keeps the mean maps.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways, a temperature or regularization that is not
        positive, iterations below 1.
    """
    checks.check_models(encoder=encoder)
    checks.check_sizes(2, ways=ways)
    checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(0, inner_steps=inner_steps)
    checks.check_positive(temperature=temperature, regularization=regularization)
    checks.check_sizes(iterations=iterations)

    def logits(v, u):
        one = lambda u, v: similarity(u, v, regularization, iterations)
        each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
        return temperature * each(u, v)

    def objective(v, context, batch):
        del batch
        u, onehot = context
        there = jnp.sum(onehot, axis=0) > 0
        scores = jnp.where(there[None, :], logits(v, u), -1e30)
        log_p = jax.nn.log_softmax(scores, axis=1)
        return -jnp.sum(onehot * log_p) / jnp.maximum(jnp.sum(onehot), 1)

    descend = inner.descent(
        "deepemd",
        objective,
        steps=inner_steps,
        adjoint=MixedMode(),
        inner_lr=inner_lr,
        learns=(),
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params, support, ways)
        u = _positions(z)
        v, shots = class_means(u, onehot)
        v = descend(v, (u, onehot), ())
        return Maps(params, v, shots)

    def predict(adapted, inputs, mask=None):
        u = _positions(forward(encoder, adapted.encoder, inputs, mask))
        return mask_absent_classes(logits(adapted.v, u), adapted.shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(encoder.init, adapt, predict, loss)
