"""TIM: transductive information maximization.

Boudiaf, Masud, Rony, Dolz, Piantanida, Ben Ayed. Information Maximization for Few-Shot
Learning. NeurIPS 2020, arXiv 2008.11297. On fixed, normalised features f(x), with
p_ik = softmax_k(-tau/2 |w_k - f(x_i)|^2) and w_k the class means at first, descend

    lambda CE(support) - H(mean over queries of p) + alpha mean of H(p_i)    (eq. 3)

in w (TIM-GD): the queries' predictions become confident, the classes equally frequent.

Departures:
- 100 steps of 1e-3 by default; the paper takes 1000 of 1e-4.
- The encoder is trained with plain cross-entropy; the authors' with label smoothing of
  0.1.
- TIM-ADM, the paper's other solver, is not here.

Meta-parameters: the encoder's, and the classifier's of the training classes.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
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
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Boudiaf et al. 2020, arXiv 2008.11297",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
    transductive=True,
    tiny={"inner_lr": 0.01},
)
def tim(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    tau: float = 15.0,
    support_weight: float = 0.1,
    entropy_weight: float = 0.1,
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 100,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """TIM: class weights that make the queries' predictions informative.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        tau: inverse temperature of the squared distances.
        support_weight: lambda.
        entropy_weight: alpha.
        inner_lr: step size.
        inner_steps: how many, when asked to predict (the paper:
            1000 with 1e-4).
        adjoint: how to differentiate `loss` through them; training does not.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives logits
        [examples, ways] that depend on all inputs it is asked with.
    Raises: ValueError for fewer than 2 ways or classes, a tau that is not positive,
        negative weights, or as `maml`.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_positive(tau=tau)
    weights = {"support_weight": support_weight, "entropy_weight": entropy_weight}
    checks.check_numbers(least=0, **weights)
    encoder = sized(encoder, features)
    init = init_pretrained(encoder, features, classes)

    def logits(w, z):
        return -tau / 2 * squared_distances(z, w)

    def objective(w, context, batch):
        del batch
        f, onehot, q, weights, shots = context
        see = lambda z: jax.nn.log_softmax(
            jnp.where(shots[None, :] > 0, logits(w, z), -1e30), axis=1
        )
        fit = -jnp.sum(onehot * see(f)) / jnp.sum(onehot)
        log_p, share = see(q), weights / jnp.sum(weights)
        p = jnp.exp(log_p)
        marginal = share @ p
        spread = -jnp.sum(marginal * jnp.log(jnp.where(marginal > 0, marginal, 1)))
        entropy = -share @ jnp.sum(p * log_p, axis=1)
        return support_weight * fit - spread + entropy_weight * entropy

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        return SupportFeatures(params.encoder, unit(z), onehot)

    descend = inner.descent(
        "tim",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=("start", "context"),
    )

    def predict(adapted, inputs, mask=None):
        phi, f, onehot = adapted
        q = unit(forward(encoder, phi, inputs, mask))
        weights = weights_of(mask, q)
        q = jnp.where(weights[:, None] > 0, q, 0)
        c, shots = class_means(f, onehot)
        w = descend(c, (f, onehot, q, weights, shots), ())
        return mask_absent_classes(logits(w, q), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss, classes_loss(encoder, classes))
