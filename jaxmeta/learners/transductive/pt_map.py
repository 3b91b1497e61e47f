"""PT-MAP: power transform, then the most likely assignment of a balanced batch.

Hu, Gripon, Pateux. Leveraging the Feature Distribution in Transfer-based Few-Shot
Learning. ICANN 2021, arXiv 2006.03806. With features f:

    PT(f) = (f + eps)^beta / |(f + eps)^beta|                             (eq. 1)
    f <- unit length of (f - mean), the support and the queries about their own means
    M = Sinkhorn(|f_q - c_k|^2, one a query, queries / ways a class, lambda)  (eqs. 2-4)
    mu_k = (sum of support of k + sum_q M_qk f_q) / (s + sum_q M_qk)      (eq. 5)
    c_k <- c_k + alpha (mu_k - c_k),  from the support's means            (eq. 6)

It knows, and needs, that all classes have as many queries.

Departures:
- A feature keeps its sign; the paper's features are not negative.
- Sinkhorn takes 20 iterations; the authors' code goes on until 1e-6 is reached, at most
  1000.
- The encoder is trained as a plain classifier; the paper's with rotations and manifold
  mixup (S2M2_R).

Meta-parameters: the encoder's, and the classifier's of the training classes.
"""

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    SupportFeatures,
    class_means,
    embed_support,
    mask_absent_classes,
    sized,
    squared_distances,
    unit,
    weights_of,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.pretraining import classes_loss, init_pretrained
from jaxmeta.learners.registry import register
from jaxmeta.solvers import sinkhorn
from jaxmeta.types import MetaLearner, Model


def power_transform(f: jax.Array, beta: float, eps: float = 1e-6) -> jax.Array:
    """Features [n, features] made more like a normal distribution, of length 1."""
    return unit(jnp.sign(f) * (jnp.abs(f) + eps) ** beta)


@register(
    paper="Hu et al. 2021, arXiv 2006.03806",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
    transductive=True,
    tiny={"iterations": 4, "sharpness": 2.0},
)
def pt_map(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    beta: float = 0.5,
    sharpness: float = 10.0,
    alpha: float = 0.4,
    iterations: int = 30,
) -> MetaLearner:
    """PT-MAP: class centres and a balanced assignment of the queries, in turns.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        beta: power of the transform.
        sharpness: lambda, inverse regularization.
        alpha: how far centres move in an iteration (the paper: 0.4 for 1 shot, 0.2 for
            5).
        iterations: how many.

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives
        log-probabilities [examples, ways] that depend on all inputs it is asked with.
    Raises: ValueError for fewer than 2 ways or classes, numbers that are not positive,
        or alpha above 1.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_positive(beta=beta, sharpness=sharpness)
    checks.check_numbers(above=0, most=1, alpha=alpha)
    checks.check_sizes(iterations=iterations)
    encoder = sized(encoder, features)
    init = init_pretrained(encoder, features, classes)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        return SupportFeatures(params.encoder, power_transform(z, beta), onehot)

    def predict(adapted, inputs, mask=None):
        phi, f, onehot = adapted
        q = power_transform(forward(encoder, phi, inputs, mask), beta)
        weights = weights_of(mask, q)
        q = jnp.where(weights[:, None] > 0, q, 0)  # padding may be NaN
        centre = weights @ q / jnp.sum(weights)  # both sets about their own mean
        counts = jnp.sum(onehot, axis=1)
        q = jnp.where(weights[:, None] > 0, unit(q - centre[None, :]), 0)
        f = unit(f - (counts @ f / jnp.sum(counts))[None, :]) * counts[:, None]
        start, shots = class_means(f, onehot)
        present = (shots > 0).astype(q.dtype)
        columns = present / jnp.sum(present) * jnp.sum(weights)

        def assign(c):
            cost = squared_distances(q, c)
            return sinkhorn(
                cost, weights, columns, regularization=1 / sharpness, iterations=20
            )

        def step(c, _):
            m = assign(c)
            mu, _ = class_means(jnp.concatenate([f, q]), jnp.concatenate([onehot, m]))
            return c + alpha * (mu - c), None

        c, _ = jax.lax.scan(step, start, None, iterations)
        return mask_absent_classes(jnp.log(assign(c) + 1e-12), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss, classes_loss(encoder, classes))
