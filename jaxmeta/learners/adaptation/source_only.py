"""What adaptation must beat: a network trained on the labels of the source alone.

Pan, Yang. A Survey on Transfer Learning. IEEE Trans. Knowl. Data Eng. 22, 2010, has the
setting. Most of what methods gain over this is often there as soon as the inputs of each
domain are standardised by its own mean and deviation, which takes no label of the
target; few tables have that row.

Meta-parameters: the network's start.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax

from jaxmeta import losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.domains import Adapted, sides
from jaxmeta.learners.adaptation.players import Training, adapting
from jaxmeta.learners.adaptation.standardising import (
    Moments,
    check_array,
    check_standard,
    presence,
    scaled,
    standardised,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


class Standard(NamedTuple):
    """What `predict` needs."""

    classifier: Adapted
    target: Moments | None  # what the target's inputs are standardised by


def _standardising(
    learner: MetaLearner, standardise: str, epsilon: float
) -> MetaLearner:
    """The learner behind standardised inputs."""

    def adapt(params, support, key=None):
        if standardise == "none":
            return Standard(learner.adapt(params, support, key), None)
        x = check_array(support.x)
        source, target = sides(support, x.dtype)
        x, by = standardised(x, source, target, standardise, epsilon)
        if standardise == "domain":
            x = x * presence(source, target)
        return Standard(learner.adapt(params, support._replace(x=x), key), by)

    def predict(adapted, inputs, mask=None):
        if adapted.target is not None:
            inputs = scaled(check_array(inputs), adapted.target)
        return learner.predict(adapted.classifier, inputs, mask)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(learner.init, adapt, predict, loss)


@register(
    paper="Pan and Yang 2010, IEEE Trans. Knowl. Data Eng. 22",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def source_only(
    encoder: Model,
    *,
    ways: int = 2,
    features: int = 64,
    standardise: Literal["none", "source", "domain"] = "none",
    epsilon: float = 0.0,
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 500,
    batch_size: int | None = None,
    together: bool = False,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """Training on the source alone; what adaptation must beat.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes.
        features: size of what the encoder makes of an example.
        standardise: inputs less their mean, in deviations: "none" = as they are, "source"
            = both domains by the source's, "domain" = each by its own.
        epsilon: added to deviations, so that what hardly varies is not blown up.
        inner_lr: step size; a number, or a schedule of the step.
        inner_steps: steps of training on a task.
        batch_size: examples of the source in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one;
            then it has seen the target.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, inputs to standardise that are no array, or
        as `maml`.
    """
    check_standard(standardise, epsilon)
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    nothing = lambda w, seen: jnp.zeros((), seen.z.dtype)
    learner = adapting(
        "source_only", encoder, training, ways=ways, features=features, term=nothing
    )
    return _standardising(learner, standardise, epsilon)
