"""Optimal transport: the source, carried onto the target at least cost.

Courty, Flamary, Tuia, Rakotomamonjy. Optimal Transport for Domain Adaptation. IEEE
Trans. Pattern Anal. Mach. Intell. 39, 2017, arXiv 1507.00504. With masses mu_s, mu_t of
the examples and costs C(i, j) = |x_i^s - x_j^t|^2:

    gamma = argmin <gamma, C> + lambda sum gamma log gamma + eta Omega_c(gamma),
            gamma 1 = mu_s,  gamma' 1 = mu_t
    Omega_c(gamma) = sum_j sum_cl |gamma(I_cl, j)|_2        "group_lasso"
                   = sum_j sum_cl |gamma(I_cl, j)|_1^{1/2}  "half_power"
    x_i -> sum_j gamma(i, j) x_j^t / sum_j gamma(i, j)

I_cl are the source examples of a class: no target example is to get mass of two classes.
By the generalised conditional gradient (algorithm 1): from gamma without Omega_c,

    gamma* = argmin of the same with <gamma, eta grad Omega_c(gamma^k)> for eta Omega_c
    gamma^{k+1} = gamma^k + alpha_k (gamma* - gamma^k)

"half_power" is concave and is minimised so with alpha = 1, each step of which lowers a
bound that touches it (Courty, Flamary, Tuia. ECML 2014).

Departures: alpha_k = 2 / (k + 3) in place of a search along the line, which has no
derivative. Costs are in units of their mean, so that lambda and eta suit all features.
The plan is that of `solvers.sinkhorn`, which takes padding and has a derivative; nothing
else of a library of transport (ott-jax) is needed.

Meta-parameters: those of the encoder and of the head, where they are networks.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import for_all
from jaxmeta.learners.adaptation.heads import Head, Training
from jaxmeta.learners.adaptation.moving import MOMENTUM, moving
from jaxmeta.learners.features import squared_distances
from jaxmeta.learners.registry import register
from jaxmeta.solvers import sinkhorn
from jaxmeta.types import MetaLearner, Model

FEW = 100  # examples; for fewer it is not worth it to compile a plan of half of them
LEAST = 1e-3  # added to a class's mass, of which half_power takes a root


def group_lasso(gamma: jax.Array, onehot: jax.Array) -> jax.Array:
    """grad of sum |gamma(I_cl, j)|_2: gamma(i, j) / |gamma(I_cl, j)|_2, i in I_cl."""
    squares = onehot.T @ jnp.square(gamma)  # [ways, m]
    norms = onehot @ jnp.sqrt(squares + 1e-20)  # [n, m]
    return gamma / jnp.where(norms > 0, norms, 1)


def half_power(gamma: jax.Array, onehot: jax.Array) -> jax.Array:
    """grad of sum |gamma(I_cl, j)|_1^{1/2}."""
    return onehot @ (0.5 * (onehot.T @ gamma + LEAST) ** -0.5)


PENALTIES = {"group_lasso": group_lasso, "half_power": half_power}


class Side(NamedTuple):
    """A domain's examples, among others that have no weight."""

    z: jax.Array  # [n, features]
    weights: jax.Array  # [n] 1 = of the domain, 0 = not


def unit_cost(source: Side, target: Side) -> jax.Array:
    """C [n, m], of which the rows and columns with weights count, in units of their
    mean."""
    cost = squared_distances(source.z, target.z)
    pairs = jnp.maximum(jnp.sum(source.weights) * jnp.sum(target.weights), 1)
    mean = source.weights @ cost @ target.weights / pairs
    return cost / jnp.where(mean > 0, mean, 1)


def transport(
    cost: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    onehot: jax.Array,
    *,
    regularization: float = 0.05,
    iterations: int = 100,
    class_penalty: str = "none",
    eta: float = 0.1,
    rounds: int = 10,
) -> jax.Array:
    """gamma [n, m]: cost [n, m], masses [n] and [m], onehot [n, ways] of the source.

    The other arguments are those of `optimal_transport`.
    """

    @jax.checkpoint
    def solve(cost):
        return sinkhorn(
            cost, rows, columns, regularization=regularization, iterations=iterations
        )

    def improve(gamma, k):
        toward = solve(cost + eta * PENALTIES[class_penalty](gamma, onehot))
        alpha = 1.0 if class_penalty == "half_power" else 2 / (k + 3)
        return gamma + alpha * (toward - gamma), None

    gamma = solve(cost)
    if class_penalty == "none":
        return gamma
    return jax.lax.scan(improve, gamma, jnp.arange(rounds, dtype=cost.dtype))[0]


def barycentres(gamma: jax.Array, z: jax.Array) -> jax.Array:
    """Where each row goes: gamma [n, m], z [m, d] -> [n, d]; 0 for a row without mass."""
    masses = jnp.sum(gamma, axis=1, keepdims=True)
    return gamma @ z / jnp.where(masses > 0, masses, 1)


def masses(weights: jax.Array) -> jax.Array:
    """Equal ones, of sum 1."""
    return weights / jnp.maximum(jnp.sum(weights), 1)


def carried(plan: Callable, z, onehot, source, target, few: int = FEW) -> jax.Array:
    """Where the source goes: z [n, d], onehot [n, ways], weights [n] of each domain ->
    [n, d], 0 where it is not the source.

    plan: (source, target, onehot of the source) -> gamma. Which examples are whose is not
    known before the run. But where neither domain has more than half of them, as is usual,
    the first half of each, its own ones first, is all of it: a quarter of the pairs.
    """

    def of(rows, columns):
        s, t = Side(z[rows], source[rows]), Side(z[columns], target[columns])
        arrived = barycentres(plan(s, t, onehot[rows]), t.z)
        return jnp.zeros_like(z).at[rows].set(arrived)

    every, half = jnp.arange(len(z)), (len(z) + 1) // 2
    if len(z) < few:
        return of(every, every)
    first = lambda weights: jnp.argsort(-weights, stable=True)[:half]
    fits = (jnp.sum(source) <= half) & (jnp.sum(target) <= half)
    return jax.lax.cond(
        for_all(fits),
        lambda: of(first(source), first(target)),
        lambda: of(every, every),
    )


@register(
    paper="Courty et al. 2017, arXiv 1507.00504",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={"inner_steps": 3, "inner_lr": 0.5, "iterations": 10, "rounds": 2},
)
def optimal_transport(
    encoder: Model | None,
    *,
    ways: int = 2,
    regularization: float = 0.05,
    iterations: int = 100,
    class_penalty: Literal["none", "group_lasso", "half_power"] = "none",
    eta: float = 0.1,
    rounds: int = 10,
    standardise: Literal["none", "source", "domain"] = "none",
    epsilon: float = 0.0,
    together: bool = True,
    head: Head = "softmax",
    inner_lr: float | optax.Schedule = 0.5,
    inner_steps: int = 200,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = MOMENTUM,
) -> MetaLearner:
    """Optimal transport of the source onto the target, and a classifier of what arrives.

    Args:
        encoder: inputs -> [examples, features]; None = the features are the inputs.
        ways: classes.
        regularization: lambda, of the entropy, in units of the mean cost.
        iterations: of each plan, as in `solvers.sinkhorn`.
        class_penalty: Omega_c, which keeps the classes apart; "none" = without.
        eta: its factor, in units of the mean cost.
        rounds: steps of the generalised conditional gradient.
        standardise: features less their mean, in deviations, before they are carried:
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
    Raises: ValueError for fewer than 2 ways, a regularization that is not positive, or
        other numbers out of range.
    """
    checks.check_positive(regularization=regularization)
    checks.check_sizes(iterations=iterations, rounds=rounds)
    checks.check_choice("class_penalty", class_penalty, ("none", *PENALTIES))
    checks.check_numbers(least=0, eta=eta)

    def plan(source, target, onehot):
        return transport(
            unit_cost(source, target), masses(source.weights), masses(target.weights),
            onehot, regularization=regularization, iterations=iterations,
            class_penalty=class_penalty, eta=eta, rounds=rounds,
        )  # fmt: skip

    return moving(
        "optimal_transport", encoder, head, partial(carried, plan),
        Training(inner_lr, inner_steps, adjoint, rule),
        ways=ways, standardise=standardise, epsilon=epsilon, together=together,
    )  # fmt: skip
