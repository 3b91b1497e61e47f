"""Matching networks.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra. Matching Networks for One Shot
Learning. NeurIPS 2016, arXiv 1606.04080:

    P(y | x, S) = sum_i a(x, x_i) y_i                                     (eq. 1)
    a(x, x_i) = softmax_i cosine(f(x), g(x_i))                            (section 2.1.1)

Full context embeddings (appendix A): g reads the support set with a bidirectional LSTM,
f reads it with K steps of an LSTM that attends to g,

    g_i = forward_i + backward_i + g'(x_i)                                (eq. 8)
    h_k = LSTM(f'(x), [h_{k-1}, r_{k-1}]) + f'(x),  r_k = sum_i softmax_i(h_k . g_i) g_i

Departures: cosines are multiplied by 10 by default; the paper has no factor.

Meta-parameters: those of the encoder f' = g', and of the LSTMs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    cosines,
    embed_support,
    flat,
    mask_absent_classes,
    sized,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.models import lstm
from jaxmeta.types import MetaLearner, Model, PyTree


class MatchingParams(NamedTuple):
    """Meta-parameters of matching networks."""

    encoder: PyTree
    context: dict[str, Any]  # LSTMs "forward", "backward", "attend"; {} without


class Matched(NamedTuple):
    """An adapted matching network: the support set, and what counts of it."""

    params: MatchingParams
    g: jax.Array  # [examples, features]
    onehot: jax.Array  # [examples, ways]


def _read(cell_params, z, counts, reverse):
    """States [n, features] of an LSTM over a sequence; padding leaves them as they are."""
    start = lstm.zero_state(1, z.shape[1], z.dtype)

    def step(cell, row):
        x, count = row
        new = lstm.step(cell_params, cell, x[None])
        cell = jax.tree.map(lambda a, b: jnp.where(count, a, b), new, cell)
        return cell, cell.h[0]

    return jax.lax.scan(step, start, (z, counts), reverse=reverse)[1]


def _attend(cell_params, z, g, counts, steps):
    """f(x) of each query z [n, features]: `steps` looks at the support set g."""

    def look(h):
        scores = jnp.where(counts[None, :], h @ g.T, -jnp.inf)
        return jax.nn.softmax(scores, axis=1) @ g

    def step(_, carry):
        h, cell, r = carry
        # the LSTM's recurrent input is [h, r]: h as its state, r beside f'(x)
        cell = lstm.step(cell_params, cell._replace(h=h), jnp.concatenate([z, r], 1))
        h = cell.h + z
        return h, cell, look(h)

    cell = lstm.zero_state(len(z), z.shape[1], z.dtype)
    return jax.lax.fori_loop(0, steps, step, (z, cell, look(z)))[0]


@register(
    paper="Vinyals et al. 2016, arXiv 1606.04080",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def matching(
    encoder: Model,
    *,
    ways: int = 5,
    features: int = 64,
    full_context: bool = False,
    processing_steps: int = 5,
    scale: float = 10.0,
) -> MetaLearner:
    """Matching networks: attention over the labelled support set.

    Args:
        encoder: the encoder f' = g', inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        features: size of what the encoder makes of an example.
        full_context: full context embeddings; the support set is then read in the order
            it comes in.
        processing_steps: K, looks at the support set of a query; only with
            full_context.
        scale: of the cosines in the softmax (the paper has 1, with which the largest
            probability of 5 classes is 0.65).

    Returns: a `MetaLearner`; `predict` gives log-probabilities [examples, ways], -inf for
        a class without support examples.
    Raises: ValueError for fewer than 2 ways, or sizes or a scale that are not positive.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_flags(full_context=full_context)
    checks.check_sizes(features=features, processing_steps=processing_steps)
    encoder = sized(encoder, features) if full_context else flat(encoder)
    checks.check_positive(scale=scale)

    def init(key):
        keys = jax.random.split(key, 4)
        if not full_context:
            return MatchingParams(encoder.init(keys[0]), {})
        sizes = {"forward": features, "backward": features, "attend": 2 * features}
        cells = {
            name: lstm.init(k, size, features)
            for k, (name, size) in zip(keys[1:], sizes.items(), strict=True)
        }
        return MatchingParams(encoder.init(keys[0]), cells)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        if full_context:
            counts, cells = jnp.any(onehot > 0, axis=1), params.context
            z = (
                _read(cells["forward"], z, counts, reverse=False)
                + _read(cells["backward"], z, counts, reverse=True)
                + z
            )
        return Matched(params, z, onehot)

    def predict(adapted, inputs, mask=None):
        params, g, onehot = adapted
        z = forward(encoder, params.encoder, inputs, mask)
        counts = jnp.any(onehot > 0, axis=1)
        if full_context:
            z = _attend(params.context["attend"], z, g, counts, processing_steps)
        scores = jnp.where(counts[None, :], scale * cosines(z, g), -jnp.inf)
        log_a = jax.nn.log_softmax(scores, axis=1)  # [n, examples]
        of_class = jnp.where(onehot.T[None] > 0, log_a[:, None, :], -1e30)
        summed = jax.scipy.special.logsumexp(of_class, axis=-1)
        return mask_absent_classes(summed, jnp.sum(onehot, axis=0))

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
