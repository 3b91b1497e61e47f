"""Latent embedding optimisation (LEO): adapt a code that generates the classifier.

Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell. Meta-Learning with Latent
Embedding Optimization. ICLR 2019, arXiv 1807.05960. Algorithm 1, for each class n:

    mu_n, sigma_n = mean over pairs of g_r(g_e(x_n), g_e(x_m)),  z_n ~ N(mu_n, sigma_n^2)
    w_n ~ N(mu_w, sigma_w^2) with (mu_w, sigma_w) = g_d(z_n)                 (eqs. 1-4)
    z' = z - alpha * grad_z L_support  (a few steps), then w' = w - gamma * grad_w L_support

with L_support the loss of a class set, one example of each class: the mean over the
shots of a class, summed over the classes. alpha and gamma have an entry for each dimension.

    outer: L_query(w') + beta KL(q(z_n) || N(0, I)) + gamma_e |stop(z') - z|^2
           + lambda R(decoder), R the correlations of its weights             (eq. 6)

Departures:
- With a key a class has one sample; in the authors' code one for each of its shots, whose
  classifiers are averaged.
- Deviations are exp(s), of w times r = sqrt(2 / (ways + f)), s kept within -3..3; in the
  authors' code exp(s) - 1, of w exp(s) - 1 + r, and at least 1e-10.
- The KL is exact; in the authors' code it is that of the samples.
- Rates are learned as logarithms, so they stay positive.
- The authors' dropout (0.5, of features) and L2 (1e-8) are no part of the learner; for
  the second give the outer optimiser weight decay.

Meta-parameters: encoder g_e, relation network g_r, decoder g_d, the rates alpha and
gamma, and the network that makes the features (in the paper a fixed, pre-trained one).
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import forward
from jaxmeta.learners.features import embed_support, mask_absent_classes, sized
from jaxmeta.learners.objectives import query_metrics
from jaxmeta.learners.registry import register
from jaxmeta.models.parameters import glorot
from jaxmeta.types import MetaLearner, Model, PyTree, Task


class LEOParams(NamedTuple):
    """Meta-parameters of LEO; f is the size of features, h of latents."""

    features: PyTree  # the encoder's
    encoder: jax.Array  # [f, h]
    relation: list[jax.Array]  # [2h, 2h] three times
    decoder: jax.Array  # [h, 2f]
    log_alpha: jax.Array  # [h] logarithms of the two learned rates
    log_gamma: jax.Array  # [f]


class LEOAdapted(NamedTuple):
    """An adapted LEO: features, and a linear classifier on them."""

    features: PyTree
    w: jax.Array  # [ways, f]
    shots: jax.Array  # [ways]


class _Noise(NamedTuple):
    z: jax.Array  # [ways, h] standard normal, or zeros for the means
    w: jax.Array  # [ways, f]


def _encode(params, x, onehot):
    """Features [n, f], classes [n, ways] -> mean and log deviation of z, [ways, h]."""
    codes = x @ params.encoder
    n = len(codes)
    first = jnp.repeat(codes, n, axis=0)  # all pairs, the first varying slowest
    pairs = jnp.concatenate([first, jnp.tile(codes, (n, 1))], axis=1)
    for layer in params.relation[:-1]:
        pairs = jax.nn.relu(pairs @ layer)
    pairs = (pairs @ params.relation[-1]).reshape(n, n, -1)
    counts = jnp.max(onehot, axis=1)  # [n] 0 for padding
    row = jnp.sum(pairs * counts[None, :, None], axis=1) / jnp.sum(counts)
    shots = jnp.maximum(jnp.sum(onehot, axis=0), 1)
    return jnp.split(onehot.T @ row / shots[:, None], 2, axis=1)


def _decode(decoder, z, noise):
    """Codes [ways, h] -> classifier [ways, f]."""
    mean, log_std = jnp.split(z @ decoder, 2, axis=1)
    ways, features = mean.shape
    start = 0.5 * math.log(2 / (ways + features))  # as wide as Glorot's at first
    return mean + noise * jnp.exp(_bounded(log_std) + start)


def _bounded(log_std):
    return 3 * jnp.tanh(log_std / 3)  # deviations within e^-3..e^3


def _class_set_loss(w, x, onehot):
    """Summed over the classes: the mean over a class's examples of -log p(y | x)."""
    shots = jnp.sum(onehot, axis=0)
    log_p = jax.nn.log_softmax(mask_absent_classes(x @ w.T, shots))
    log_p = jnp.where(onehot > 0, log_p, 0)
    return -jnp.sum(jnp.sum(log_p, axis=0) / jnp.maximum(shots, 1))


def _mean(values, shots):
    """Mean of [ways, n] over the classes that have examples."""
    there = (shots > 0).astype(values.dtype)
    return jnp.sum(jnp.mean(values, axis=1) * there) / jnp.maximum(jnp.sum(there), 1)


def _correlations(decoder):
    """How far the decoder's rows are from orthogonal: mean squared correlation."""
    unit = decoder / jnp.linalg.norm(decoder, axis=1, keepdims=True)
    apart = unit @ unit.T - jnp.eye(len(unit), dtype=unit.dtype)
    return jnp.mean(jnp.square(apart))


@register(
    paper="Rusu et al. 2019, arXiv 1807.05960",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    tiny={"latent": 4},
)
def leo(
    encoder: Model,
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
    orthogonality: float = 0.001,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """LEO: gradient descent in a low-dimensional space of classifiers.

    Args:
        encoder: makes the features, inputs -> [examples, f]; a pre-trained one goes into
            `params.features`.
        ways: classes of a task; the parameters do not depend on it.
        features: f, size of what the encoder makes of an example.
        latent: h, size of a class's code.
        inner_lr: where alpha, the learned step sizes in code space, start.
        inner_steps: steps in code space.
        tuning_lr: where gamma, the learned step sizes of the classifier, start.
        tuning_steps: steps of the classifier itself.
        kl_weight: beta.
        encoder_penalty: gamma_e.
        orthogonality: lambda.
        adjoint: how to differentiate through the inner loops.

    Returns: a `MetaLearner`. With a key, `adapt` and the objective of training sample
        codes and classifiers; without one, and in `loss`, they are means. `predict` gives
        logits [examples, ways], -inf for a class without support examples.
    Raises: ValueError for fewer than 2 ways, a latent size below 1, rates that are not
        positive, or an adjoint that gives no gradient for start, rates and decoder.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    checks.check_sizes(latent=latent)
    checks.check_positive(inner_lr=inner_lr, tuning_lr=tuning_lr)
    checks.check_sizes(0, inner_steps=inner_steps, tuning_steps=tuning_steps)
    weights = {"kl_weight": kl_weight, "encoder_penalty": encoder_penalty}
    checks.check_numbers(least=0, orthogonality=orthogonality, **weights)

    def code_objective(z, fixed, onehot):
        decoder, x, noise = fixed
        return _class_set_loss(_decode(decoder, z, noise), x, onehot)

    move_code = inner.descent(
        "leo",
        code_objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=lambda log_rates: optax.sgd(jnp.exp(log_rates)[None, :]),
        learns=("start", "rule", "context"),
    )
    tune = replace(move_code, objective=_class_set_loss, steps=tuning_steps)

    def init(key):
        keys = jax.random.split(key, 6)
        square = (2 * latent, 2 * latent)
        return LEOParams(
            encoder.init(keys[0]),
            glorot(keys[1], (features, latent)),
            [glorot(k, square) for k in keys[2:5]],
            glorot(keys[5], (latent, 2 * features)),
            math.log(inner_lr) * jnp.ones(latent),
            math.log(tuning_lr) * jnp.ones(features),
        )

    def run(params, support, key):
        """w', and what the regularisers need."""
        x, onehot = embed_support(encoder, params.features, support, ways)
        shots = jnp.sum(onehot, axis=0)
        mean, log_std = _encode(params, x, onehot)
        noise = _noise(key, mean.shape, (ways, features), x.dtype)
        log_std = _bounded(log_std)
        z = mean + noise.z * jnp.exp(log_std)
        fixed = (params.decoder, x, noise.w)
        z_end = move_code(z, fixed, onehot, hyper=params.log_alpha)
        w = _decode(params.decoder, z_end, noise.w)
        w = tune(w, x, onehot, hyper=params.log_gamma)
        kl = 0.5 * (jnp.exp(2 * log_std) + jnp.square(mean) - 1) - log_std
        moved = jnp.square(jax.lax.stop_gradient(z_end) - z)
        adapted = LEOAdapted(params.features, w, shots)
        return adapted, _mean(kl, shots), _mean(moved, shots)

    def adapt(params, support, key=None):
        return run(params, support, key)[0]

    def predict(adapted, inputs, mask=None):
        x = forward(encoder, adapted.features, inputs, mask)
        return mask_absent_classes(x @ adapted.w.T, adapted.shots)

    judge = query_metrics(predict, losses.cross_entropy)

    def loss(params, task: Task, key=None):
        del key  # a test is of the means
        return judge(adapt(params, task.support), task)

    def objective(params, task: Task, key, step):
        del step
        adapted, kl, moved = run(params, task.support, key)
        value, metrics = judge(adapted, task)
        penalties = kl_weight * kl + encoder_penalty * moved
        penalties += orthogonality * _correlations(params.decoder)
        return value + penalties, metrics | {"kl": kl}

    return MetaLearner(init, adapt, predict, loss, objective)


def _noise(key, z_shape, w_shape, dtype):
    """Standard normal numbers, or zeros without a key."""
    if key is None:
        return _Noise(jnp.zeros(z_shape, dtype), jnp.zeros(w_shape, dtype))
    key_z, key_w = jax.random.split(key)
    normal = jax.random.normal
    return _Noise(normal(key_z, z_shape, dtype), normal(key_w, w_shape, dtype))
