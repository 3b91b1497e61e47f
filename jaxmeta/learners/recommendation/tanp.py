"""Task-adaptive neural process (TaNP): a neural process that knows kinds of users.

Lin, Wu, Zhou, Pan, Cao, Wang. Task-adaptive Neural Process for User Cold-Start
Recommendation. WWW 2021, arXiv 2103.06137. With x the embedding of user and item:

    z ~ q(z | T) = N(mu, exp(s)),  (mu, s) from the mean of h(x_i, y_i)
    o = mean of m(x_i, y_i) over the support, the user's identity
    c_j = (1 + |o - A_j| / a)^(-(a + 1) / 2), divided by their sum;  o' = o + sum_j c_j A_j
    h_l = relu(tanh(W_l o') W h_{l-1} + tanh(V_l o')),  h_0 = (x, z)            (FiLM)
    L = mean squared error + KL(q(z | all) | q(z | support)) + lambda KL(t | c)

t_j is c_j^2, divided by their sum. Distances are those of the authors' code, not squared.

Departures:
- t_j is of one user; the authors divide c_j^2 by what cluster j has in a batch of users.
- The support set is what the sampler gives; the authors draw its size anew.
- One z is drawn in training as in the authors' code; without a key it is its mean.

Meta-parameters: of the embedding, h, m and the decoder, and the centres A.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import columns, concatenate, forward
from jaxmeta.learners.features import sized
from jaxmeta.learners.recommendation.judging import rating_loss
from jaxmeta.learners.registry import register
from jaxmeta.models import layers, parameters, set_encoder
from jaxmeta.models.parameters import Parameter, glorot
from jaxmeta.types import MetaLearner, Model, PyTree

TINY = {"latents": 4, "width": 8, "hidden": (8,), "clusters": 2}


class TaNPParams(NamedTuple):
    """Meta-parameters of TaNP."""

    embedding: PyTree
    latent: PyTree
    identity: PyTree
    decoder: dict[str, Any]  # dense1, scale1, shift1, ..., head
    centres: jax.Array  # A [clusters, width]


class Posterior(NamedTuple):
    """A normal distribution of z, by the logarithm of its variance."""

    mean: jax.Array  # [latents]
    log_variance: jax.Array  # [latents]


class User(NamedTuple):
    """An adapted TaNP."""

    embedding: PyTree
    decoder: dict[str, Any]
    z: jax.Array  # [latents]
    o: jax.Array  # [width], o'


@register(
    paper="Lin et al. 2021, arXiv 2103.06137",
    learns=("recommendation",),
    networks=lambda n: [n.rater(n.width)],
    tiny=TINY,
)
def tanp(
    embedding: Model,
    *,
    features: int = 32,
    latents: int = 32,
    width: int = 64,
    hidden: tuple[int, ...] = (128, 128, 128),
    clusters: int = 7,
    temperature: float = 1.0,
    kl_weight: float = 1.0,
    cluster_weight: float = 0.1,
) -> MetaLearner:
    """TaNP: a network reads what a user rated, and finds whom they resemble.

    Args:
        embedding: of user and item, inputs -> [examples, features], e.g.
            `jm.models.rater(items, 32, (32,))`.
        features: numbers that the embedding makes of an example.
        latents: size of z.
        width: of the networks h and m, and of the identity o.
        hidden: widths of the decoder's layers.
        clusters: how many centres A_j.
        temperature: a, of the distances to them.
        kl_weight: of the divergence of z.
        cluster_weight: lambda.

    Returns: a `MetaLearner`; `predict` gives ratings [examples, 1]. The loss is the mean
        squared error of the queries; training descends L, of support and query.
    Raises: ValueError for sizes below 1, a temperature that is not positive, or a negative
        weight.
    """
    checks.check_models(embedding=embedding)
    embedding = sized(embedding, features)
    checks.check_sizes(latents=latents, width=width, clusters=clusters)
    checks.check_shapes(hidden=hidden)
    checks.check_positive(temperature=temperature)
    checks.check_numbers(least=0, kl_weight=kl_weight, cluster_weight=cluster_weight)
    h = set_encoder(features + 1, 2 * latents, hidden=(width,) * 3, after=(width,))
    m = set_encoder(features + 1, width, hidden=(2 * width, width), after=(width,))
    described = film(features + latents, hidden, width)

    def init(key):
        keys = jax.random.split(key, 5)
        return TaNPParams(
            embedding.init(keys[0]),
            h.init(keys[1]),
            m.init(keys[2]),
            parameters.fill(described, keys[3]),
            glorot(keys[4], (clusters, width), jnp.float32),
        )

    def pairs(params, batch):
        x = forward(embedding, params.embedding, batch.x, batch.mask)
        return jnp.concatenate([x, columns(batch.y).astype(x.dtype)], axis=1)

    def posterior(params, batch) -> Posterior:
        return Posterior(
            *jnp.split(forward(h, params.latent, pairs(params, batch), batch.mask), 2)
        )

    def identity(params, support):
        o = forward(m, params.identity, pairs(params, support), support.mask)
        c = resemblance(o, params.centres, temperature)
        return o + c @ params.centres, c

    def adapt(params, support, key=None):
        z = drawn(key, posterior(params, support))
        return User(params.embedding, params.decoder, z, identity(params, support)[0])

    def predict(adapted, inputs, mask=None):
        x = forward(embedding, adapted.embedding, inputs, mask)
        z = jnp.broadcast_to(adapted.z[None], (len(x), latents))
        return decoded(adapted.decoder, jnp.concatenate([x, z], axis=1), adapted.o)

    def objective(params, task, key, step):
        del step
        everything = concatenate(task.support, task.query)
        prior, q = posterior(params, task.support), posterior(params, everything)
        o, c = identity(params, task.support)
        adapted = User(params.embedding, params.decoder, drawn(key, q), o)
        outputs = predict(adapted, everything.x, everything.mask)
        error = losses.mean_loss(losses.mse, outputs, everything)
        value = error + kl_weight * divergence(q, prior) + cluster_weight * sharpness(c)
        return value, {"loss": value}

    loss = rating_loss(adapt, predict, losses.mse)
    return MetaLearner(init, adapt, predict, loss, objective)


def drawn(key: jax.Array | None, q: Posterior) -> jax.Array:
    """One z [latents] of a distribution; its mean without a key."""
    if key is None:
        return q.mean
    noise = jax.random.normal(key, q.mean.shape, q.mean.dtype)
    return q.mean + jnp.exp(0.5 * q.log_variance) * noise


def divergence(q: Posterior, p: Posterior) -> jax.Array:
    """KL(q | p), summed over z. Returns: []."""
    apart = jnp.exp(q.log_variance) + jnp.square(q.mean - p.mean)
    ratio = p.log_variance - q.log_variance
    return 0.5 * jnp.sum(apart / jnp.exp(p.log_variance) - 1 + ratio)


def resemblance(o: jax.Array, centres: jax.Array, temperature: float) -> jax.Array:
    """c: how much of each centre an identity o [width] has, [clusters], 1 in all."""
    apart = jnp.sqrt(jnp.sum(jnp.square(o[None] - centres), axis=1) + 1e-12)
    kernel = (1 + apart / temperature) ** (-(temperature + 1) / 2)
    return kernel / jnp.sum(kernel)


def sharpness(c: jax.Array) -> jax.Array:
    """KL(t | c), t the squares of c, divided by their sum. Returns: []."""
    t = jnp.square(c) / jnp.sum(jnp.square(c))
    return jnp.sum(t * (jnp.log(t) - jnp.log(c)))


def film(inputs: int, hidden: tuple[int, ...], width: int) -> dict[str, Any]:
    """Parameters of `decoded`: a layer's own, and what makes its scale and shift of o'."""
    kernel = lambda n: Parameter((width, n), parameters.LECUN, 1, jnp.float32)
    made: dict[str, Any] = {"head": parameters.dense(hidden[-1], 1)}
    for i, ends in enumerate(pairwise((inputs, *hidden)), start=1):
        made[f"dense{i}"] = parameters.dense(*ends)
        made |= {
            f"{name}{i}": {"kernel": kernel(ends[1])} for name in ("scale", "shift")
        }
    return made


def decoded(params: dict[str, Any], x: jax.Array, o: jax.Array) -> jax.Array:
    """The decoder: x [n, features + latents], o' [width] -> [n, 1]."""
    for i in range(1, 1 + sum(name.startswith("dense") for name in params)):
        scale, shift = (
            jnp.tanh(o @ params[f"{name}{i}"]["kernel"]) for name in ("scale", "shift")
        )
        h = layers.dense(params[f"dense{i}"], x)
        x = jax.nn.relu(h * scale[None] + shift[None])
    return layers.dense(params["head"], x)
