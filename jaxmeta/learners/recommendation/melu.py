"""MeLU: MAML of a recommender whose embeddings stay where they are.

Lee, Im, Jang, Cho, Chung. MeLU: Meta-Learned User Preference Estimator for Cold-Start
Recommendation. KDD 2019, arXiv 1908.00413. Algorithm 1; theta_1 are the embeddings of users
and items, theta_2 the decision-making layers and the output layer above them:

    theta_2^i = theta_2 - alpha grad_theta_2 L_i(f_{theta_1, theta_2})     (local, on support)
    theta_1, theta_2 <- theta - beta grad_theta sum_i L_i'(f_{theta_1, theta_2^i})

Departures:
- The meta-gradient is exact; the authors' code copies the adapted layers into the network
  by value, so that its own is what `adjoint=jm.FirstOrder()` gives.
- The default alpha of 5e-6 is the authors', which moves the layers hardly at all.

Meta-parameters: theta, exactly the parameters of the model.
"""

from collections.abc import Callable

import jax
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.objectives import predictor, support_objective
from jaxmeta.learners.recommendation.judging import rating_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Lee et al. 2019, arXiv 1908.00413",
    learns=("recommendation",),
    networks=lambda n: [n.rater(1)],
)
def melu(
    model: Model,
    *,
    embeddings: str = "embeddings",
    inner_lr: float | optax.Schedule = 5e-6,
    inner_steps: int = 1,
    loss: losses.Loss = losses.mse,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """MeLU: meta-learn embeddings and layers, adapt the layers to a user.

    Args:
        model: the network, e.g. `jm.models.rater(items)`; its parameters are a dict.
        embeddings: name of the entry that is not adapted.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the inner
            step (0, 1, ...).
        inner_steps: gradient steps of adaptation.
        loss: loss of one rating, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters,
        `predict` gives ratings [examples, 1].
    Raises: ValueError if the model has no entry of that name, or as `maml`.

    >>> import jaxmeta as jm
    >>> learner = jm.melu(jm.models.rater(1682), inner_lr=0.01)
    >>> sorted(learner.init(jax.random.key(0)))
    ['dense1', 'dense2', 'embeddings', 'head']
    """
    _check_entry(model, embeddings)
    whole = support_objective(model, loss)

    def objective(theta_2, theta_1, batch):
        return whole(theta_2 | {embeddings: theta_1}, (), batch)

    descend = inner.descent(
        "melu",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        theta_1 = params[embeddings]
        theta_2 = {name: p for name, p in params.items() if name != embeddings}
        return descend(theta_2, theta_1, support) | {embeddings: theta_1}

    predict = predictor(model)
    return MetaLearner(model.init, adapt, predict, rating_loss(adapt, predict, loss))


def _check_entry(model: Model, name: str) -> None:
    """Raise ValueError unless the model's parameters are a dict with that entry."""
    checks.check_models(model=model)
    checks.check_names(embeddings=name)
    entries = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    names = sorted(entries) if isinstance(entries, dict) else []
    if name not in names:
        raise ValueError(
            f"embeddings: the model has no entry {name!r} to keep; expected one of "
            f"{', '.join(map(str, names)) or 'a dict, it has no named entries'}"
        )
