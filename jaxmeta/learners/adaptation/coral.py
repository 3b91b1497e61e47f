"""CORAL: the source, given the covariance of the target.

Sun, Feng, Saenko. Return of Frustratingly Easy Domain Adaptation. AAAI 2016,
arXiv 1511.05547. With C_S, C_T the covariances of source D_S and target D_T
(algorithm 1):

    C_S = cov(D_S) + lambda I,  C_T = cov(D_T) + lambda I,  lambda = 1
    D_S* = D_S C_S^{-1/2} C_T^{1/2}

and a classifier is trained on D_S*.

The derivative of a square root S = C^{1/2} is that of S S = C:  S dS + dS S = dC. It is
finite where eigenvalues are equal, where the derivative of eigenvectors is not.

Departures:
- Means are aligned, too (`mean`); the paper's are 0, since it standardises each domain
  by itself (`standardise="domain"`).
- The classifier is softmax regression by gradient descent, the nearest neighbour or a
  network (`head`), the paper's a linear SVM.

Meta-parameters: those of the encoder and of the head, where they are networks.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.deep_coral import covariance
from jaxmeta.learners.adaptation.domains import averaged
from jaxmeta.learners.adaptation.heads import Head, Training
from jaxmeta.learners.adaptation.moving import MOMENTUM, moving
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def lyapunov(s: jax.Array, q: jax.Array) -> jax.Array:
    """X of s X + X s = q, s [d, d] symmetric and positive; differentiable in both."""
    values, v = jnp.linalg.eigh(jax.lax.stop_gradient(s))
    sums = values[:, None] + values[None, :]
    return jax.lax.custom_linear_solve(
        lambda x: s @ x + x @ s,
        q,
        lambda _, q: v @ ((v.T @ q @ v) / sums) @ v.T,
        symmetric=True,
    )


@jax.custom_jvp
def square_root(c: jax.Array) -> jax.Array:
    """C^{1/2} of a symmetric matrix without negative eigenvalues, [d, d]."""
    values, v = jnp.linalg.eigh(c)
    return (v * jnp.sqrt(jnp.maximum(values, 0))[None, :]) @ v.T


@square_root.defjvp
def _(primals, tangents):
    s, (dc,) = square_root(*primals), tangents
    return s, lyapunov(s, (dc + dc.T) / 2)


def align(
    z: jax.Array,
    source: jax.Array,
    target: jax.Array,
    regularization: float = 1.0,
    mean: str = "target",
) -> jax.Array:
    """D_S*: z [n, d], weights [n] of each domain -> [n, d], right for the source's.

    mean: what the aligned source has, the target's or its own.
    """
    identity = regularization * jnp.eye(z.shape[1], dtype=z.dtype)
    root = lambda weights: square_root(covariance(z, weights) + identity)
    of_source = averaged(z, source)
    kept = averaged(z, target) if mean == "target" else of_source
    recolour = jnp.linalg.solve(root(source), root(target))
    return (z - of_source[None, :]) @ recolour + kept[None, :]


@register(
    paper="Sun et al. 2016, arXiv 1511.05547",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={"inner_steps": 3, "inner_lr": 0.5},
)
def coral(
    encoder: Model | None,
    *,
    ways: int = 2,
    regularization: float = 1.0,
    mean: Literal["target", "source"] = "target",
    standardise: Literal["none", "source", "domain"] = "domain",
    epsilon: float = 0.0,
    together: bool = True,
    head: Head = "softmax",
    inner_lr: float | optax.Schedule = 0.5,
    inner_steps: int = 200,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = MOMENTUM,
) -> MetaLearner:
    """CORAL: correlation alignment, and a classifier of the aligned source.

    Args:
        encoder: inputs -> [examples, features]; None = the features are the inputs, and
            there is nothing to meta-learn: evaluate it as it is.
        ways: classes.
        regularization: lambda; 0 takes more examples of each domain than features.
        mean: the aligned source has the target's mean, or keeps its own.
        standardise: features less their mean, in deviations, before they are aligned:
            "none" = as they are, "source" = both domains by the source's, "domain" = each
            by its own.
        epsilon: added to deviations, so that what hardly varies is not blown up.
        together: whether an encoder that normalises by its batch sees both domains as one;
            query examples it sees by themselves.
        head: the classifier: "softmax" = softmax regression, from zero; "nearest" = the
            class of the nearest neighbour, without training; or a network, [examples,
            features] -> [examples, ways], whose start is meta-learned.
        inner_lr: step size of the classifier.
        inner_steps: its steps; by the default rule they come as far as twice as many of
            plain gradient descent, `optax.sgd`.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`; the default has a momentum of 1/2.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative regularization, or another head.
    """
    checks.check_numbers(least=0, regularization=regularization)
    checks.check_choice("mean", mean, ("target", "source"))
    aligned = partial(align, regularization=regularization, mean=mean)
    return moving(
        "coral", encoder, head, lambda z, onehot, *sides: aligned(z, *sides),
        Training(inner_lr, inner_steps, adjoint, rule),
        ways=ways, standardise=standardise, epsilon=epsilon, together=together,
    )  # fmt: skip
