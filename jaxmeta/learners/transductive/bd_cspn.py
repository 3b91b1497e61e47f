"""BD-CSPN: prototypes rectified by the queries.

Liu, Song, Qin. Prototype Rectification for Few-Shot Learning. ECCV 2020, arXiv
1911.10713. With support S, queries Q and features x:

    xi = mean of S - mean of Q,  added to each query                      (eq. 4)
    w_i = softmax over class k's examples of eps cos(x_i, p_k)            (eq. 8)
    p'_k = sum_i w_i x_i,  over the support and the queries nearest to p_k (eq. 7)
    logits = tau cos(x, p'_k)

Departures:
- All queries nearest to p_k move it; the paper takes the most confident few.
- Features are taken as they are; the paper's p_k are means of features of unit length.
- The classifier of the training classes is linear; the paper's has cosines times a
  learned scale.

Meta-parameters: the encoder's, and the classifier's of the training classes.
"""

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    SupportFeatures,
    cosines,
    embed_support,
    mask_absent_classes,
    sized,
    weights_of,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.pretraining import classes_loss, init_pretrained
from jaxmeta.learners.registry import register
from jaxmeta.learners.transductive.graph import rectified
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Liu et al. 2020, arXiv 1911.10713",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
    transductive=True,
)
def bd_cspn(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    epsilon: float = 10.0,
    temperature: float = 10.0,
) -> MetaLearner:
    """BD-CSPN: shift the queries to the support, then let them move the prototypes.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        epsilon: how much examples near a prototype weigh more.
        temperature: tau, factor of the cosines.

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives logits
        [examples, ways] that depend on all inputs it is asked with.
    Raises: ValueError for fewer than 2 ways or classes, epsilon or tau not positive.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_positive(epsilon=epsilon, temperature=temperature)
    encoder = sized(encoder, features)
    init = init_pretrained(encoder, features, classes)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        return SupportFeatures(params.encoder, z, onehot)

    def predict(adapted, inputs, mask=None):
        phi, z, onehot = adapted
        q = forward(encoder, phi, inputs, mask)
        p, q, shots = rectified(z, onehot, q, weights_of(mask, q), epsilon)
        return mask_absent_classes(temperature * cosines(q, p), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss, classes_loss(encoder, classes))
