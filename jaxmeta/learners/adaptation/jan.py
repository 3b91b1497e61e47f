"""JAN: features and predictions, taken together, are alike in both domains.

Long, Zhu, Wang, Jordan. Deep Transfer Learning with Joint Adaptation Networks. ICML 2017,
arXiv 1605.06636. With z^l what layer l makes of an example:

    L = L_class + lambda D
    D = MMD^2 with the kernel k(i, j) = prod_l k^l(z_i^l, z_j^l)

Here the layers are the features and softmax predictions. Lambda grows in the course of
training, 2 / (1 + exp(-10 p)) - 1 with p from 0 to 1.

Departures: MMD^2 of all pairs in place of an estimate that is linear in their number; no
network that makes the kernel's inputs worse on purpose (their JAN-A).

Meta-parameters: the network's start.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.discrepancies import (
    check_kernels,
    gaussian,
    squared_mmd,
)
from jaxmeta.learners.adaptation.mmd import unit_of
from jaxmeta.learners.adaptation.players import Training, adapting
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Long et al. 2017, arXiv 1605.06636",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def jan(
    encoder: Model,
    *,
    ways: int = 2,
    features: int = 64,
    weight: float = 0.3,
    estimator: Literal["unbiased", "biased"] = "unbiased",
    squared_bandwidths: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0),
    unit: Literal["mean", "median", "none"] = "mean",
    predictions: float | None = 0.84,
    ramped: bool = True,
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 500,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """JAN: joint MMD of features and predictions.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes.
        features: size of what the encoder makes of an example.
        weight: lambda.
        estimator: of MMD^2: without the pairs of an example with itself, or with them.
        squared_bandwidths: of the features' kernels, as in `mmd`.
        unit: what they are multiples of, as in `mmd`.
        predictions: squared bandwidth of the kernel of predictions, a multiple of 1 as in
            the authors' code; None leaves predictions out, as `mmd` does.
        ramped: whether lambda grows in the course of training.
        inner_lr: step size; a number, or a schedule of the step.
        inner_steps: steps of training on a task.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative weight, a squared bandwidth that
        is not positive, or as `maml`.
    """
    check_kernels(estimator, squared_bandwidths, unit)
    checks.check_flags(ramped=ramped)
    if predictions is not None:
        checks.check_positive(predictions=predictions)
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    width = unit_of(unit)

    def term(w, seen):
        k = gaussian(seen.z, squared_bandwidths, width(seen.now))
        if predictions is not None:
            k = k * gaussian(jax.nn.softmax(seen.logits, axis=1), (predictions,), 1.0)
        return squared_mmd(k, seen.source, seen.target, estimator)

    return adapting(
        "jan", encoder, training,
        ways=ways, features=features, term=term, weight=weight, ramped=ramped,
        now=True,
    )  # fmt: skip
