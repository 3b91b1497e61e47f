"""ALFA: step sizes and weight decay generated from the task's gradients.

Baik, Choi, Choi, Kim, Lee. Meta-Learning with Adaptive Hyperparameters. NeurIPS 2020,
arXiv 2011.00209. Equations 4 and 5, for each layer and inner step j:

    theta_{j+1} = beta_j o theta_j - alpha_j o grad L(theta_j)
    (alpha_j, beta_j) = (alpha0_j, beta0_j) o g_phi(tau_j)

tau_j holds the mean gradient and the mean weight of every layer.

Departures:
- g_phi starts as the constant 1 and beta0 as 1, so that the first rule is gradient
  descent; the authors' code starts g_phi at random and writes beta as 1 - beta0 g_phi
  with a small beta0.
- tau is differentiated; the authors' code takes its gradients as constants.
- All parameters are adapted; the authors' settings leave batch norm's out.

Meta-parameters: theta (ALFA on MAML), the generator g_phi, and alpha0, beta0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.learned_rule import learned_rule
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class Generator(NamedTuple):
    """phi of ALFA, for N layers (leaves of theta)."""

    mlp: PyTree  # g_phi: 2N -> 2N -> 2N, one hidden layer
    alpha: jax.Array  # [steps, N] alpha0
    beta: jax.Array  # [steps, N] beta0


def _generate(phi, j, tau):
    """[2N] -> alpha_j [N], beta_j [N]."""
    hidden = jax.nn.relu(tau @ phi.mlp["w1"] + phi.mlp["b1"])
    out = hidden @ phi.mlp["w2"] + phi.mlp["b2"]
    alpha, beta = jnp.split(out, 2)
    return phi.alpha[j] * alpha, phi.beta[j] * beta


def _rule(phi) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        j = state
        gradients, tree = jax.tree.flatten(updates)
        weights = jax.tree.leaves(params)
        tau = jnp.stack([jnp.mean(a) for a in gradients + weights])
        alpha, beta = _generate(phi, j, tau)
        steps = [
            (beta[i] - 1) * weights[i] - alpha[i] * gradients[i]
            for i in range(len(weights))
        ]
        return jax.tree.unflatten(tree, steps), j + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


@register(
    paper="Baik et al. 2020, arXiv 2011.00209",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def alfa(
    model: Model,
    *,
    inner_lr: float = 0.01,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """ALFA: MAML whose inner rule sets its own rates, per task, layer and step.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: where alpha0 starts; g_phi starts as the constant 1 and beta0 as 1, so
            the first inner rule is gradient descent with this step size.
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.

    Returns: a `MetaLearner`; its params are a `LearnedRule(theta, phi)`, phi a
        `Generator`.
    Raises: ValueError for a negative `inner_lr` or `inner_steps`, or an adjoint that
        gives no gradient for the generator (`FirstOrder`, `Implicit`).
    """
    checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(0, inner_steps=inner_steps)

    def init_rule(key, theta):
        dtype = jax.tree.leaves(theta)[0].dtype
        n = len(jax.tree.leaves(theta))
        w1 = jax.random.normal(key, (2 * n, 2 * n), dtype) / jnp.sqrt(2.0 * n)
        zeros = jnp.zeros((2 * n, 2 * n), dtype)
        mlp = {"w1": w1, "b1": zeros[0], "w2": zeros, "b2": jnp.ones_like(zeros[0])}
        start = jnp.ones((max(1, inner_steps), n), dtype)
        return Generator(mlp, inner_lr * start, start)

    return learned_rule(
        model,
        _rule,
        init_rule,
        inner_steps=inner_steps,
        loss=loss,
        adjoint=adjoint,
        name="alfa",
    )
