"""SNAIL: a simple neural attentive learner.

Mishra, Rohaninejad, Chen, Abbeel. A Simple Neural Attentive Meta-Learner. ICLR 2018,
arXiv 1707.03141, section 3. The support examples with their labels, then a query without
one, are a sequence that causal layers read:

    DenseBlock(R, D): x, tanh(xf) sigmoid(xg)   of dilated causal convolutions, width 2
    TCBlock(T, D):    DenseBlock(2^i, D) for i = 1 .. ceil(log2 T)
    Attention(K, V):  x, softmax(q k' / sqrt K) v, causal

Omniglot (section 5.1): Attention(64, 32), TC(T, 128), Attention(256, 128), TC(T, 128),
Attention(512, 256), then the logits at the query.

The layers are causal and a query comes last, so what they make of the support set does
not depend on it: each layer maps (support S, query Q), and all queries share S.

Meta-parameters: those of the encoder and of the layers.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import examples, forward, shuffled
from jaxmeta.learners.features import embed_support, sized
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.models.layers import gated
from jaxmeta.models.parameters import glorot
from jaxmeta.types import MetaLearner, Model, PyTree

LAYERS = ((64, 32), 128, (256, 128), 128, (512, 256))  # the paper's, at scale 1


class SNAILParams(NamedTuple):
    """Meta-parameters of SNAIL."""

    encoder: PyTree
    layers: list[Any]
    head: dict[str, jax.Array]


class Sequence(NamedTuple):
    """An adapted SNAIL: the support set as a sequence, padding first."""

    params: SNAILParams
    s: jax.Array  # [examples, features + ways]
    counts: jax.Array  # [examples]


def _dense(key, inputs, outputs):
    w = glorot(key, (inputs, outputs))
    return {"w": w, "b": jnp.zeros(outputs)}


def _apply(layer, x):
    return x @ layer["w"] + layer["b"][None, :]


def _dense_block(layer, s, q, counts, dilation):
    """Causal convolution of two taps, gated; zeros before the sequence begins."""
    n = len(s)
    past_s = jnp.pad(s, ((dilation, 0), (0, 0)))[:n]
    past_q = s[n - dilation] if dilation <= n else jnp.zeros_like(q[0])
    past_q = jnp.broadcast_to(past_q[None], q.shape)

    def grown(past, now):
        both = _apply(layer, jnp.concatenate([past, now], 1))
        return jnp.concatenate([now, gated(both)], axis=1)

    return grown(past_s, s) * counts[:, None], grown(past_q, q)


def _attention(layer, s, q, counts):
    """The support looks back at itself, a query at the support and at itself."""
    n, size = len(s), layer["key"]["w"].shape[1]
    both = jnp.concatenate([s, q])
    keys, queries, values = (_apply(layer[k], both) for k in ("key", "query", "value"))
    scores = queries @ keys[:n].T / size**0.5  # [n + queries, n]
    itself = jnp.sum(queries * keys, axis=1, keepdims=True) / size**0.5
    before = jnp.arange(n)[None, :] < jnp.arange(len(both))[:, None]
    scores = jnp.where(before & (counts > 0)[None, :], scores, -1e30)
    weights = jax.nn.softmax(jnp.concatenate([scores, itself], axis=1), axis=1)
    read = weights[:, :n] @ values[:n] + weights[:, n:] * values
    both = jnp.concatenate([both, read], axis=1)
    return both[:n] * counts[:, None], both[n:]


@register(
    paper="Mishra et al. 2018, arXiv 1707.03141",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    tiny={"length": 12, "scale": 0.1},
)
def snail(
    encoder: Model,
    *,
    ways: int = 5,
    features: int = 64,
    length: int = 25,
    scale: float = 1.0,
) -> MetaLearner:
    """SNAIL: temporal convolutions and attention over the support set and a query.

    With a key the support set is read in random order, without one as it comes.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes of a task; the first layer depends on it.
        features: size of what the encoder makes of an example.
        length: the largest support set (rows, padding included); T = length + 1 fixes
            the number of convolutions.
        scale: width of the layers, as a multiple of the paper's.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, sizes that are not positive, or a support
        set longer than `length`.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    checks.check_sizes(length=length)
    checks.check_positive(scale=scale)
    dilations = [2**i for i in range(1, math.ceil(math.log2(length + 1)) + 1)]
    scaled = lambda size: max(1, round(size * scale))

    def init(key):
        key_encoder, key_head, key = jax.random.split(key, 3)
        size, layers = features + ways, []
        for i, spec in enumerate(LAYERS):
            keys = jax.random.split(jax.random.fold_in(key, i), max(3, len(dilations)))
            if isinstance(spec, tuple):
                k, v = scaled(spec[0]), scaled(spec[1])
                sizes = {"key": k, "query": k, "value": v}
                rows = zip(keys[:3], sizes.items(), strict=True)
                layers.append({name: _dense(k, size, d) for k, (name, d) in rows})
                size += v
            else:
                blocks, d = [], scaled(spec)
                for k in keys[: len(dilations)]:
                    blocks.append(_dense(k, 2 * size, 2 * d))
                    size += d
                layers.append(blocks)
        phi = encoder.init(key_encoder)
        return SNAILParams(phi, layers, _dense(key_head, size, ways))

    def adapt(params, support, key=None):
        if examples(support) > length:
            raise ValueError(
                f"length: the support set has {examples(support)} rows, this SNAIL reads at "
                f"most {length}; make it with length={examples(support)} or more"
            )
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        z, onehot = shuffled(key, (z, onehot))
        counts = jnp.sum(onehot, axis=1)
        order = jnp.argsort(counts, stable=True)  # padding first: before the sequence
        s = jnp.concatenate([z, onehot], axis=1)[order]
        return Sequence(params, s, counts[order])

    def predict(adapted, inputs, mask=None):
        params, s, counts = adapted
        z = forward(encoder, params.encoder, inputs, mask)
        q = jnp.concatenate([z, jnp.zeros((len(z), ways), z.dtype)], axis=1)
        for layer in params.layers:
            if isinstance(layer, dict):
                s, q = _attention(layer, s, q, counts)
                continue
            for block, dilation in zip(layer, dilations, strict=True):
                s, q = _dense_block(block, s, q, counts, dilation)
        return _apply(params.head, q)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
