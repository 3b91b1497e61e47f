"""MMD (DAN): features whose means agree in the space of a kernel.

Long, Cao, Wang, Jordan. Learning Transferable Features with Deep Adaptation Networks.
ICML 2015, arXiv 1502.02791. With z the features of source and target:

    L = L_class + lambda MMD_k^2(z_s, z_t)
    k = sum_u beta_u k_u,  k_u(a, b) = exp(-|a - b|^2 / (2 s_u)),  sum_u beta_u = 1

Departures:
- One layer of features, not several; the beta_u are equal, not learned.
- MMD^2 of all pairs; the paper's estimate, linear in the number of examples, takes each
  example in one pair.
- s_u is a multiple of the mean squared distance of two examples; the paper's, of the
  median (`unit="median"`), from 2^-8 to 2^8.

The unit of the s_u is what it is at each step, and no step goes against its derivative:
features would not come together but only the scale of what is near. A meta-gradient has
that derivative (`inner.Game`, semi).

Meta-parameters: the network's start.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import optax

from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.discrepancies import (
    check_kernels,
    gaussian,
    squared_mmd,
    typical,
)
from jaxmeta.learners.adaptation.domains import Seen
from jaxmeta.learners.adaptation.players import Training, adapting
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def unit_of(unit: str) -> Callable[[Seen], jax.Array]:
    """What the bandwidths of the features' kernels are multiples of."""
    return lambda seen: typical(seen.z, seen.source + seen.target, unit)


@register(
    paper="Long et al. 2015, arXiv 1502.02791",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def mmd(
    encoder: Model,
    *,
    ways: int = 2,
    features: int = 64,
    weight: float = 1.0,
    estimator: Literal["unbiased", "biased"] = "unbiased",
    squared_bandwidths: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0),
    unit: Literal["mean", "median", "none"] = "mean",
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 500,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """MMD of the features of both domains, as in deep adaptation networks.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes.
        features: size of what the encoder makes of an example.
        weight: lambda.
        estimator: of MMD^2: without the pairs of an example with itself, or with them.
        squared_bandwidths: s_u of the kernels exp(-|a - b|^2 / (2 s_u)), whose mean is k.
        unit: what they are multiples of: the mean or median squared distance of two
            examples; "none" = 1.
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
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    width = unit_of(unit)

    def term(w, seen):
        k = gaussian(seen.z, squared_bandwidths, width(seen.now))
        return squared_mmd(k, seen.source, seen.target, estimator)

    return adapting(
        "mmd", encoder, training,
        ways=ways, features=features, term=term, weight=weight, now=True,
    )  # fmt: skip
