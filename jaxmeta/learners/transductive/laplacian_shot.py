"""LaplacianShot: nearest prototypes, and neighbours of one mind.

Ziko, Dolz, Granger, Ben Ayed. Laplacian Regularized Few-Shot Learning. ICML 2020,
arXiv 2006.15486. For the assignments y_q of all queries together,

    E(Y) = sum_q y_q . a_q + lambda/2 sum_qp w_qp |y_q - y_p|^2           (eq. 1)

with a_qk = |x_q - m_k|^2 and w_qp = 1 for the k nearest neighbours; each step minimises
an upper bound of it with an entropy, in closed form (algorithm 1):

    y_q <- softmax(-a_q + lambda sum_p w_qp y_p)                         (eq. 11)

The prototypes m are rectified as in BD-CSPN, the features normalised.

Departures:
- Features have unit length; the authors' code subtracts the training set's mean first
  (CL2N).
- Prototypes are those of `bd_cspn`; in the authors' code an example's weight is a
  softmax over classes, prototypes are plain means of weighted examples, and support
  examples count for their nearest prototype.
- Shifted queries and rectified prototypes get unit length again; the authors' do not.
- k counts neighbours other than the query; the authors' 3 include the query itself.
- lambda is fixed; the paper tunes it on validation classes.

Meta-parameters: the encoder's, and the classifier's of the training classes.
"""

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    SupportFeatures,
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
from jaxmeta.learners.transductive.graph import neighbours, rectified
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Ziko et al. 2020, arXiv 2006.15486",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
    transductive=True,
    tiny={"iterations": 4},
)
def laplacian_shot(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    smoothness: float = 0.7,
    neighbours_of: int = 3,
    iterations: int = 20,
    epsilon: float = 10.0,
) -> MetaLearner:
    """LaplacianShot: queries that are neighbours get the same class.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        smoothness: lambda.
        neighbours_of: k, neighbours of a query.
        iterations: of the bound optimisation.
        epsilon: of the prototypes' rectification.

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives logits
        [examples, ways] that depend on all inputs it is asked with.
    Raises: ValueError for fewer than 2 ways or classes, a negative smoothness, sizes
        below 1.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_sizes(neighbours_of=neighbours_of, iterations=iterations)
    checks.check_positive(epsilon=epsilon)
    checks.check_numbers(least=0, smoothness=smoothness)
    encoder = sized(encoder, features)
    init = init_pretrained(encoder, features, classes)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        return SupportFeatures(params.encoder, unit(z), onehot)

    def predict(adapted, inputs, mask=None):
        phi, z, onehot = adapted
        q = unit(forward(encoder, phi, inputs, mask))
        weights = weights_of(mask, q)
        m, q, shots = rectified(z, onehot, q, weights, epsilon)
        q, m = unit(q), unit(m)
        a = jnp.where(shots[None, :] > 0, squared_distances(q, m), 1e30)
        w = neighbours(squared_distances(q, q), weights, neighbours_of)

        def step(_, logits):
            y = jax.nn.softmax(logits, axis=1)
            return -a + smoothness * (w @ y)

        return mask_absent_classes(jax.lax.fori_loop(0, iterations, step, -a), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss, classes_loss(encoder, classes))
