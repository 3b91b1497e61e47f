"""A user's network in both flavours of Flax, and the same written by hand."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from problems import pad

import jaxmeta as jm

key = jax.random.key
FLAVOURS = ["linen", "nnx"]
WAYS, FEATURES = 3, 4
close = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)


def same(a, b, tolerance=1e-8):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=tolerance), a, b)


# The network: dense, batch norm, sigmoid, dropout, dense. Its parameters are one tree in
# both flavours.


class Linen(nn.Module):
    outputs: int = WAYS
    running: bool | None = None
    tokens: bool = False

    @nn.compact
    def __call__(self, x):
        if self.tokens:
            x = jnp.mean(nn.Embed(7, FEATURES, name="embed")(x), axis=1)
        x = nn.Dense(8, name="body")(x)
        x = nn.sigmoid(nn.BatchNorm(self.running, name="norm")(x))
        return nn.Dense(self.outputs, name="head")(nn.Dropout(0.5)(x))


class NNX(nnx.Module):
    def __init__(self, rngs, running=False, tokens=False):
        if tokens:
            self.embed = nnx.Embed(7, FEATURES, rngs=rngs)
        self.tokens = tokens
        self.body = nnx.Linear(FEATURES, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=running, rngs=rngs)
        self.norm.mean = nnx.BatchStat(
            jnp.zeros(8)
        )  # Flax warns of float32 and float64
        self.norm.var = nnx.BatchStat(jnp.ones(8))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, WAYS, rngs=rngs)

    def __call__(self, x):
        if self.tokens:
            x = jnp.mean(self.embed(x), axis=1)
        return self.head(self.dropout(nnx.sigmoid(self.norm(self.body(x)))))


def hidden(params, x):
    """What batch norm sees."""
    if "embed" in params:
        x = jnp.mean(params["embed"]["embedding"][x], axis=1)
    return x @ params["body"]["kernel"] + params["body"]["bias"][None]


def moments(h, mask=None):
    """Mean and variance over the examples that count."""
    weights = jnp.ones(len(h)) if mask is None else mask / jnp.sum(mask)
    weights = (weights / jnp.sum(weights))[:, None]
    mean = jnp.sum(weights * h, axis=0)
    return mean, jnp.sum(weights * jnp.square(h - mean[None]), axis=0)


def activations(params, x, mask=None, statistics=None):
    h = hidden(params, x)
    mean, variance = statistics or moments(h, mask)
    h = (h - mean[None]) / jnp.sqrt(variance + 1e-5)[None]
    norm = params["norm"]
    return jax.nn.sigmoid(h * norm["scale"][None] + norm["bias"][None])


def by_hand(params, x, mask=None, statistics=None):
    h = activations(params, x, mask, statistics)
    return h @ params["head"]["kernel"] + params["head"]["bias"][None]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@cache
def trained(tokens=False):
    """Parameters and running statistics of a trained network."""
    random = np.random.default_rng(0)
    dense = lambda a, b: {
        "kernel": random.normal(size=(a, b)), "bias": random.normal(size=b)
    }  # fmt: skip
    params = {"body": dense(FEATURES, 8), "head": dense(8, WAYS)}
    params["norm"] = {"scale": random.normal(size=8), "bias": random.normal(size=8)}
    if tokens:
        params["embed"] = {"embedding": random.normal(size=(7, FEATURES))}
    return params, (random.normal(size=8), random.uniform(0.5, 2, size=8))


def given(flavour, tokens=False, **kwargs):
    """The trained network, with its running statistics."""
    params, (mean, variance) = trained(tokens)
    if flavour == "linen":
        shape, dtype = ((5,), jnp.int32) if tokens else ((FEATURES,), jnp.float64)
        stats = {"norm": {"mean": mean, "var": variance}}
        variables = {"params": params, "batch_stats": stats}
        return jm.models.from_linen(
            Linen(tokens=tokens), shape, dtype=dtype, variables=variables, **kwargs
        )
    module = NNX(nnx.Rngs(0), tokens=tokens)
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, params))
    nnx.update(module, state)
    module.norm.mean = nnx.BatchStat(jnp.asarray(mean))
    module.norm.var = nnx.BatchStat(jnp.asarray(variance))
    return jm.models.from_nnx(module, **kwargs)


def made(flavour, **kwargs):
    """The network untrained."""
    if flavour == "linen":
        return jm.models.from_linen(Linen(**kwargs), (FEATURES,), dtype=jnp.float64)
    return jm.models.from_nnx(partial(NNX, **kwargs))


@cache
def sampler(tokens=False, padded=False):
    random = np.random.default_rng(0)
    x = random.normal(size=(48, FEATURES))
    x = random.integers(0, 7, (48, 5)) if tokens else x + np.arange(48)[:, None] % 6
    data = jm.data.from_arrays(x, np.arange(48) % 6)
    episodes = jm.tasks.episodes(data, WAYS, shots=2, queries=2)
    return Padded(episodes) if padded else episodes


@jax.tree_util.register_dataclass
@dataclass
class Padded:
    """Tasks with three masked rows of nonsense in each set."""

    episodes: Any

    def sample(self, key):
        return jm.Task(*(pad(batch, 3, 1e3) for batch in self.episodes.sample(key)))


def examples(seed, n=6, classes=WAYS):
    return jm.Batch(normal(seed, n, FEATURES), np.arange(n) % classes)
