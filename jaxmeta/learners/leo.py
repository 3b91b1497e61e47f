"""Latent embedding optimisation (LEO): adapt a code that generates the classifier.

Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell. Meta-Learning with Latent
Embedding Optimization. ICLR 2019, arXiv 1807.05960. Algorithm 1, for each class n:

    mu_n, sigma_n = mean over pairs of g_r(g_e(x_n), g_e(x_m)),  z_n ~ N(mu_n, sigma_n^2)
    w_n ~ N(mu_w, sigma_w^2) with (mu_w, sigma_w) = g_d(z_n)                 (eqs. 1-4)
    z' = z - alpha grad_z L_support  (a few steps), then w' = w - gamma grad_w L_support

    outer: L_query(w') + beta KL(q(z_n) || N(0, I)) + gamma_e |stop(z') - z|^2
           + lambda R(decoder), R the correlations of its weights             (eq. 6)

Meta-parameters: encoder g_e, relation network g_r, decoder g_d, the rates alpha and
gamma, and the network that makes the features (in the paper a fixed, pre-trained one).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode, require
from jaxmeta.learners.common import check_descent, check_ways, judged, one_hot
from jaxmeta.types import MetaLearner, Model, PyTree, Task, blank_padding, forward


class LEOParams(NamedTuple):
    """Meta-parameters of LEO; f is the size of features, h of latents."""

    features: PyTree  # the model's
    encoder: jax.Array  # [f, h]
    relation: list[jax.Array]  # [2h, 2h] three times
    decoder: jax.Array  # [h, 2f]
    log_alpha: jax.Array  # [] logarithms of the two learned rates
    log_gamma: jax.Array  # []


class LEOAdapted(NamedTuple):
    """An adapted LEO: features, and a linear classifier on them."""

    features: PyTree
    w: jax.Array  # [ways, f]


class _Noise(NamedTuple):
    z: jax.Array  # [ways, h] standard normal, or zeros for the means
    w: jax.Array  # [ways, f]


def _encode(params, x, belongs):
    """Features [n, f], classes [n, ways] -> mean and log deviation of z, [ways, h]."""
    codes = x @ params.encoder
    n = len(codes)
    first = jnp.repeat(codes, n, axis=0)  # all pairs, the first varying slowest
    pairs = jnp.concatenate([first, jnp.tile(codes, (n, 1))], axis=1)
    for layer in params.relation[:-1]:
        pairs = jax.nn.relu(pairs @ layer)
    pairs = (pairs @ params.relation[-1]).reshape(n, n, -1)
    counts = jnp.max(belongs, axis=1)  # [n] 0 for padding
    row = jnp.sum(pairs * counts[None, :, None], axis=1) / jnp.sum(counts)
    shots = jnp.maximum(jnp.sum(belongs, axis=0), 1)
    return jnp.split(belongs.T @ row / shots[:, None], 2, axis=1)


def _decode(decoder, z, noise):
    """Codes [ways, h] -> classifier [ways, f]."""
    mean, log_std = jnp.split(z @ decoder, 2, axis=1)
    ways, features = mean.shape
    start = 0.5 * math.log(2 / (ways + features))  # as wide as Glorot's at first
    return mean + noise * jnp.exp(_bounded(log_std) + start)


def _bounded(log_std):
    return 3 * jnp.tanh(log_std / 3)  # deviations within e^-3..e^3


def _correlations(decoder):
    """How far the decoder's rows are from orthogonal: mean squared correlation."""
    unit = decoder / jnp.linalg.norm(decoder, axis=1, keepdims=True)
    apart = unit @ unit.T - jnp.eye(len(unit), dtype=unit.dtype)
    return jnp.mean(jnp.square(apart))


def leo(
    model: Model,
    *,
    ways: int = 5,
    features: int = 64,
    latent: int = 64,
    inner_lr: float = 1.0,
    inner_steps: int = 5,
    tuning_lr: float = 0.001,
    tuning_steps: int = 5,
    kl_weight: float = 0.001,
    encoder_penalty: float = 1e-9,
    orthogonality: float = 0.1,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """LEO: gradient descent in a low-dimensional space of classifiers.

    Args:
        model: makes the features, inputs -> [examples, f]; a pre-trained one goes into
            `params.features`.
        ways: classes of a task; the parameters do not depend on it.
        features: f, size of what the model makes of an example.
        latent: h, size of a class's code.
        inner_lr: where alpha, the learned step size in code space, starts.
        inner_steps: steps in code space.
        tuning_lr: where gamma, the learned step size of the classifier, starts.
        tuning_steps: steps of the classifier itself.
        kl_weight: beta.
        encoder_penalty: gamma_e.
        orthogonality: lambda.
        adjoint: how to differentiate through the inner loops.

    Returns: a `MetaLearner`. With a key, codes and classifiers are sampled; without one
        their means are used. The metrics are always those of the means.
    Raises: ValueError for fewer than 2 ways, a latent size below 1, rates that are not
        positive, or an adjoint that gives no gradient for start, rates and decoder.
    """
    check_ways(ways)
    check_descent(inner_lr, inner_steps)
    check_descent(tuning_lr, tuning_steps)
    if latent < 1 or not inner_lr > 0 or not tuning_lr > 0:
        raise ValueError(
            "latent, inner_lr, tuning_lr: expected positive numbers, got "
            f"{latent}, {inner_lr} and {tuning_lr}"
        )
    require(adjoint, "leo", "start", "rule", "context")

    def logits(w, x):
        return x @ w.T

    def code_objective(z, fixed, batch):
        decoder, x, noise = fixed
        return losses.mean_loss(
            losses.cross_entropy, logits(_decode(decoder, z, noise), x), batch
        )

    def classifier_objective(w, x, batch):
        return losses.mean_loss(losses.cross_entropy, logits(w, x), batch)

    rule = lambda log_rate: optax.sgd(jnp.exp(log_rate))

    def init(key):
        keys = jax.random.split(key, 6)
        glorot = jax.nn.initializers.glorot_uniform()
        square = (2 * latent, 2 * latent)
        return LEOParams(
            model.init(keys[0]),
            glorot(keys[1], (features, latent)),
            [glorot(k, square) for k in keys[2:5]],
            glorot(keys[5], (latent, 2 * features)),
            jnp.asarray(math.log(inner_lr), jnp.float32),
            jnp.asarray(math.log(tuning_lr), jnp.float32),
        )

    def embed(params, support):
        checks.check_batch(support)
        checks.check_labels(support, ways)
        support = blank_padding(support)
        x = forward(model, params.features, support.x, support.mask)
        if x.shape[1:] != (features,):
            raise ValueError(
                f"features: the model gives {x.shape[1:]} for an example; expected "
                f"({features},), so build LEO with features={x.shape[-1]}"
            )
        return support, x, one_hot(support.y, ways, support.mask, x.dtype)

    def run(params, support, key):
        """w', and what the regularisers need."""
        support, x, belongs = embed(params, support)
        mean, log_std = _encode(params, x, belongs)
        noise = _noise(key, mean.shape, (ways, features), x.dtype)
        log_std = _bounded(log_std)
        z = mean + noise.z * jnp.exp(log_std)
        fixed = (params.decoder, x, noise.w)
        z_end = inner.descend(
            code_objective,
            rule,
            inner_steps,
            adjoint,
            z,
            fixed,
            support,
            hyper=params.log_alpha,
        )
        w = inner.descend(
            classifier_objective,
            rule,
            tuning_steps,
            adjoint,
            _decode(params.decoder, z_end, noise.w),
            x,
            support,
            hyper=params.log_gamma,
        )
        kl = jnp.mean(0.5 * (jnp.exp(2 * log_std) + jnp.square(mean) - 1) - log_std)
        moved = jnp.mean(jnp.square(jax.lax.stop_gradient(z_end) - z))
        return LEOAdapted(params.features, w), kl, moved

    def adapt(params, support, key=None):
        return run(params, support, key)[0]

    def predict(adapted, inputs, mask=None):
        return logits(adapted.w, forward(model, adapted.features, inputs, mask))

    def task_loss(params, task: Task, key=None):
        adapted, kl, moved = run(params, task.support, key)
        judge = judged(predict, losses.cross_entropy)
        value, metrics = judge(adapted, task)
        if key is not None:  # what a person reads is of the means, as in a test
            _, metrics = judge(adapt(params, task.support), task)
        penalties = kl_weight * kl + encoder_penalty * moved
        penalties += orthogonality * _correlations(params.decoder)
        return value + penalties, metrics | {"kl": kl}

    return MetaLearner(init, adapt, predict, task_loss)


def _noise(key, z_shape, w_shape, dtype):
    """Standard normal numbers, or zeros without a key."""
    if key is None:
        return _Noise(jnp.zeros(z_shape, dtype), jnp.zeros(w_shape, dtype))
    key_z, key_w = jax.random.split(key)
    normal = jax.random.normal
    return _Noise(normal(key_z, z_shape, dtype), normal(key_w, w_shape, dtype))
