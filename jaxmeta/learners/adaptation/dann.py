"""DANN: features from which no classifier tells the domains apart.

Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand, Lempitsky.
Domain-Adversarial Training of Neural Networks. JMLR 2016, arXiv 1505.07818. With G_f the
features, G_y the labels' classifier and G_d the domains', L_d its cross-entropy:

    theta_f <- theta_f - mu (dL_y/dtheta_f - lambda dL_d/dtheta_f)          (eq. 13)
    theta_y <- theta_y - mu dL_y/dtheta_y                                   (eq. 14)
    theta_d <- theta_d - mu dL_d/dtheta_d                                   (eq. 15)
    lambda = 2 / (1 + exp(-10 p)) - 1,  p from 0 to 1                 (section 5.2.2)

These are two players with an objective each (`inner.Game`), not one objective with a
reversed gradient: that one's second derivative, of which a meta-gradient is made, need
not be the field's.

Departures: equation 15 has lambda, too; the authors' code, whose gradient is reversed
and scaled on its way into the features, has not, and neither has this. Adam, whose b1 of
0.5 is usual where players are against each other, in place of momentum and a falling rate.

Meta-parameters: the starts of the network and of the domains' classifier.
"""

from collections.abc import Callable
from functools import partial

import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.domains import domain_loss
from jaxmeta.learners.adaptation.players import Training, adapting
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Ganin et al. 2016, arXiv 1505.07818",
    learns=("classification",),
    networks=lambda n: [n.encoder(), n.mlp(n.facts.features or n.width, 1)],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def dann(
    encoder: Model,
    discriminator: Model,
    *,
    ways: int = 2,
    features: int = 64,
    weight: float = 1.0,
    inner_lr: float | optax.Schedule = 3e-3,
    inner_steps: int = 2000,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, b1=0.5, eps_root=1e-8
    ),
) -> MetaLearner:
    """DANN.

    Args:
        encoder: G_f, inputs -> [examples, features].
        discriminator: G_d, [examples, features] -> [examples, 1], the logit of "target".
        ways: classes.
        features: size of what the encoder makes of an example.
        weight: factor of lambda.
        inner_lr: step size; a number, or a schedule of the step.
        inner_steps: steps of training on a task.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative weight, or as `maml`.
    """
    checks.check_models(discriminator=discriminator)
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    l_d = lambda w, seen: domain_loss(discriminator, w["discriminator"], seen.z, seen)
    return adapting(
        "dann", encoder, training,
        ways=ways, features=features, weight=weight, ramped=True,
        term=lambda w, seen: -l_d(w, seen),
        others={"discriminator": discriminator}, adversary={"discriminator": l_d},
    )  # fmt: skip
