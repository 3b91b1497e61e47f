"""Deep CORAL: the covariances of both domains' features are drawn together.

Sun, Saenko. Deep CORAL: Correlation Alignment for Deep Domain Adaptation. ECCV 2016
workshops, arXiv 1607.01719. With C_S, C_T the covariances of d features:

    L = L_class + lambda l_CORAL,   l_CORAL = |C_S - C_T|_F^2 / (4 d^2)      (eqs. 1, 6)
    C = (D'D - (1'D)'(1'D) / n) / (n - 1)                                    (eqs. 2, 3)

Departures: it is the features that are aligned, from which the logits are linear; the
paper aligns the logits themselves (its fc8).

Meta-parameters: the network's start.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.domains import averaged
from jaxmeta.learners.adaptation.players import Training, adapting
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def covariance(z: jax.Array, weights: jax.Array) -> jax.Array:
    """C of the examples that count: z [n, d], weights [n] of 0 and 1 -> [d, d]."""
    apart = (z - averaged(z, weights)[None, :]) * weights[:, None]
    return apart.T @ apart / jnp.maximum(jnp.sum(weights) - 1, 1)


def l_coral(z: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
    """Equation 1 of features z [n, d], weights [n] of each domain."""
    difference = covariance(z, source) - covariance(z, target)
    return jnp.sum(jnp.square(difference)) / (4 * z.shape[1] ** 2)


@register(
    paper="Sun and Saenko 2016, arXiv 1607.01719",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def deep_coral(
    encoder: Model,
    *,
    ways: int = 2,
    features: int = 64,
    weight: float = 1.0,
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 500,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """Deep CORAL.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes.
        features: size of what the encoder makes of an example.
        weight: lambda.
        inner_lr: step size; a number, or a schedule of the step.
        inner_steps: steps of training on a task.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative weight, or as `maml`.
    """
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    term = lambda w, seen: l_coral(seen.z, seen.source, seen.target)
    return adapting(
        "deep_coral", encoder, training,
        ways=ways, features=features, term=term, weight=weight,
    )  # fmt: skip
