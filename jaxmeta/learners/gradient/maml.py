"""Model-agnostic meta-learning (MAML) and its first-order form (FOMAML).

Finn, Abbeel, Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks. ICML 2017, arXiv 1703.03400. Algorithm 2:

    theta'_i = theta - alpha grad_theta L_Ti(f_theta)            (inner, on support)
    theta   <- theta - beta  grad_theta sum_i L_Ti(f_theta'_i)   (outer, on query)

Departures:
- The inner loss is the mean over the support examples; the authors' code sums the
  cross-entropy over them and divides by the shots, so that a step of the same alpha is
  `ways` times as long.
- All parameters are adapted; the authors' code leaves batch norm's offsets out, and has
  no scales.

Meta-parameters: theta, exactly the parameters of the model.
"""

from collections.abc import Callable

import optax

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, FirstOrder, MixedMode
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Finn et al. 2017, arXiv 1703.03400",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def maml(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.4,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """MAML: learn an initialisation from which a few gradient steps suffice.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the inner
            step (0, 1, ...).
        inner_steps: gradient steps of adaptation; 0 trains without adaptation (joint
            training on the query sets, the pre-training baseline).
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters,
        so a pre-trained tree can be put in as it is.
    Raises: ValueError for a negative `inner_lr` or `inner_steps`, or an adjoint that gives
        no gradient for an initialisation.

    >>> import jax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> task = jm.tasks.sinusoid(shots=5).sample(jax.random.key(0))
    >>> params = learner.init(jax.random.key(1))
    >>> adapted = learner.adapt(params, task.support)
    >>> learner.predict(adapted, task.query.x).shape
    (10, 1)
    """
    objective = support_objective(model, loss)

    descend = inner.descent(
        "maml",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        return descend(params, (), support)

    predict = predictor(model)
    return MetaLearner(model.init, adapt, predict, query_loss(adapt, predict, loss))


@register(
    paper="Finn et al. 2017, arXiv 1703.03400",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
    biased=True,  # gradients as constants
)
def fomaml(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.4,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """First-order MAML: the inner gradients are taken as constants (section 5.2).

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the inner
            step (0, 1, ...).
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`. Raises: as `maml`.
    """
    return maml(
        model,
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        loss=loss,
        adjoint=FirstOrder(),
        rule=rule,
    )
