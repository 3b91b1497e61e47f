"""Logistic regression differentiable discriminator (LR-D2).

Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form
solvers. ICLR 2019, arXiv 1805.08136. With X = phi(support inputs), labels y in {0, 1} and
mu = sigmoid(Xw), Newton's method is iteratively reweighted least squares:

    s = mu (1 - mu),   z = Xw + (y - mu) / s
    w <- (X' diag(s) X + lambda I)^-1 X' diag(s) z                         (eq. 9)
       = X' (XX' + lambda diag(s)^-1)^-1 z                                 (eq. 10)

of log(1 + e^-...) + lambda/2 |w|^2; several classes are one against the rest.

Departures:
- There is no intercept; the authors' code appends a one to each feature vector.
- Outputs are alpha x w + beta; the authors' code leaves both out.
- lambda starts at 1 and is learned; the authors' settings for several classes fix it at
  50, with 1 or 5 steps.
- Two classes have two regressions; the authors' code has one for both.
- Support and query are embedded apart; the authors' code embeds them as one batch, so
  that batch norm in training sees both.

Meta-parameters: the encoder's, and the scalars log lambda, alpha, beta, as in R2D2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import embed_support, flat, mask_absent_classes
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.solvers import logistic
from jaxmeta.types import MetaLearner, Model, PyTree


class LRD2Params(NamedTuple):
    """Meta-parameters of LR-D2; the scalars have shape []."""

    encoder: PyTree
    log_lambda: jax.Array
    alpha: jax.Array
    beta: jax.Array


class Logistic(NamedTuple):
    """An adapted LR-D2."""

    params: LRD2Params
    w: jax.Array  # [features, ways]
    shots: jax.Array  # [ways]


@register(
    paper="Bertinetto et al. 2019, arXiv 1805.08136",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def lrd2(
    encoder: Model, *, ways: int = 5, penalty: float = 1.0, iterations: int = 10
) -> MetaLearner:
    """LR-D2: logistic regressions on learned features, by Newton's method.

    Args:
        encoder: the encoder phi, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        penalty: initial lambda; it is meta-learned through its logarithm.
        iterations: Newton steps, differentiated through.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways, a penalty that is not positive, iterations
        below 1.
    """
    encoder = flat(encoder)
    checks.check_sizes(2, ways=ways)
    checks.check_positive(penalty=penalty)
    checks.check_sizes(iterations=iterations)

    def init(key):
        scalars = (math.log(penalty), 1.0, 0.0)
        return LRD2Params(
            encoder.init(key), *(jnp.asarray(s, jnp.float32) for s in scalars)
        )

    def adapt(params, support, key=None):
        del key  # deterministic
        x, onehot = embed_support(encoder, params.encoder, support, ways)
        counts = jnp.sum(onehot, axis=1)
        fit = lambda y: logistic(x, y, jnp.exp(params.log_lambda), iterations, counts)
        w = jax.vmap(fit, in_axes=1, out_axes=1)(onehot)
        return Logistic(params, w, jnp.sum(onehot, axis=0))

    def predict(adapted, inputs, mask=None):
        params, w, shots = adapted
        x = forward(encoder, params.encoder, inputs, mask)
        return mask_absent_classes(params.alpha * (x @ w) + params.beta, shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
