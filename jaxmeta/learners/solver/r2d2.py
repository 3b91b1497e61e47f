"""Ridge regression differentiable discriminator (R2D2).

Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form
solvers. ICLR 2019, arXiv 1805.08136. With X = phi(support inputs), Y its targets:

    W = argmin_W |XW - Y|^2 + lambda |W|^2 = (X'X + lambda I)^-1 X'Y     (eq. 4)
      = X' (XX' + lambda I)^-1 Y                                         (eq. 5)
    outputs = alpha phi(x) W + beta                                      (eq. 6)

Departures:
- There is no intercept; the authors' code appends a one to each feature vector, and
  penalizes its weight like the others.
- X and Y are taken as they are; the authors' code divides both by sqrt(n), so that its
  lambda is n times as strong.
- lambda starts at 1 and is learned, alpha starts at 10; the authors' settings fix
  lambda at 50, and start alpha at 1e-4 or 10.
- Support and query are embedded apart; the authors' code embeds them as one batch, so
  that batch norm in training sees both.

Meta-parameters: the encoder's, and the scalars log lambda, alpha, beta.
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
from jaxmeta.solvers import ridge
from jaxmeta.types import MetaLearner, Model, PyTree


class R2D2Params(NamedTuple):
    """Meta-parameters of R2D2; the scalars have shape []."""

    encoder: PyTree
    log_lambda: jax.Array
    alpha: jax.Array
    beta: jax.Array


class Ridge(NamedTuple):
    """An adapted R2D2."""

    params: R2D2Params
    w: jax.Array  # [features, ways or dims]
    shots: jax.Array | None  # [ways]; None in regression


@register(
    paper="Bertinetto et al. 2019, arXiv 1805.08136",
    learns=("classification", "regression"),
    networks=lambda n: [n.encoder()],
)
def r2d2(
    encoder: Model,
    *,
    ways: int | None = 5,
    penalty: float = 1.0,
    loss: losses.Loss | None = None,
) -> MetaLearner:
    """R2D2: a ridge regression on learned features, solved in closed form.

    Args:
        encoder: the encoder phi, inputs -> [examples, features].
        ways: classes of a task; None for regression, where W fits the targets as they
            are, [examples, dims].
        penalty: initial lambda; it is meta-learned through its logarithm.
        loss: loss of one example; by default cross-entropy, or `mse` if ways is None.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples, or [examples, dims].
    Raises: ValueError for fewer than 2 ways or a penalty that is not positive.
    """
    encoder = flat(encoder)
    if ways is not None:
        checks.check_sizes(2, ways=ways)
    checks.check_positive(penalty=penalty)
    if loss is None:
        loss = losses.mse if ways is None else losses.cross_entropy

    def init(key):
        # For one-hot targets the regression's outputs lie in 0..1: alpha = 1 would
        # start with nearly equal class probabilities, alpha = 10 with separate ones.
        alpha = 1.0 if ways is None else 10.0
        scalars = (math.log(penalty), alpha, 0.0)
        return R2D2Params(
            encoder.init(key), *(jnp.asarray(s, jnp.float32) for s in scalars)
        )

    def features(params, x, mask):
        z = forward(encoder, params.encoder, x, mask)
        return z if mask is None else jnp.where(mask[:, None] > 0, z, 0)

    def adapt(params, support, key=None):
        del key  # deterministic
        if ways is not None:
            x, y = embed_support(encoder, params.encoder, support, ways)
            shots = jnp.sum(y, axis=0)
        else:
            x, y, shots = features(params, support.x, support.mask), support.y, None
        return Ridge(params, ridge(x, y, jnp.exp(params.log_lambda)), shots)

    def predict(adapted, inputs, mask=None):
        params, w, shots = adapted
        x = forward(encoder, params.encoder, inputs, mask)
        outputs = params.alpha * (x @ w) + params.beta
        return outputs if shots is None else mask_absent_classes(outputs, shots)

    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
