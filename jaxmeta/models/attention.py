"""Attention: over sets, between sets, and a transformer that reads a support set.

Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv 1706.03762. Under vmap all
of it stays batched matrix products.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention of several heads (eq. 1).

    Args:
        queries: [n, heads, size]. keys: [m, heads, size]. values: [m, heads, size'].
        mask: [m] or [n, m], what is looked at (> 0); None = everything. A query that may
            look at nothing gets zeros.

    Returns: [n, heads, size'].
    """
    scores = jnp.einsum("nhd,mhd->hnm", queries, keys) / queries.shape[-1] ** 0.5
    if mask is None:
        return jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(scores, axis=-1), values)
    see = jnp.broadcast_to(mask > 0, scores.shape[1:])[None]
    weights = jax.nn.softmax(jnp.where(see, scores, -1e30), axis=-1)
    return jnp.einsum("hnm,mhd->nhd", jnp.where(see, weights, 0), values)


class MultiHead(nn.Module):
    """Attention of `heads` heads from queries to a set of keys with values."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, queries, keys, values, mask=None):
        """[n, _], [m, _], [m, _] -> [n, width]."""

        def split(name, x):
            y = nn.Dense(self.width, name=name)(x)
            return jnp.reshape(y, (len(x), self.heads, -1))

        y = attention(
            split("query", queries), split("key", keys), split("value", values), mask
        )
        return nn.Dense(self.width, name="out")(jnp.reshape(y, (len(queries), -1)))


class Block(nn.Module):
    """A transformer layer: attention, then two dense layers; norms after each sum."""

    width: int
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x, context, mask=None):
        """x [n, width] looks at context [m, width], mask as in `attention`."""
        attend = MultiHead(self.width, self.heads, name="attention")
        x = nn.LayerNorm(name="norm1")(x + attend(x, context, context, mask))
        y = nn.Dense(self.hidden, name="dense1")(x)
        y = nn.Dense(self.width, name="dense2")(nn.relu(y))
        return nn.LayerNorm(name="norm2")(x + y)


class SetToSet(nn.Module):
    """One attention layer of a set to itself, a sum and a norm."""

    features: int
    heads: int

    @nn.compact
    def __call__(self, z, mask=None):
        """[n, features] -> [n, features]; mask [n] or [n, n], what is looked at."""
        attend = MultiHead(self.features, self.heads, name="attention")
        return nn.LayerNorm(name="norm")(z + attend(z, z, z, mask))


class Reader(nn.Module):
    """A transformer whose targets look at a context, and not at each other.

    The context's states do not depend on the targets: `encode` computes them once,
    `read` as often as there are targets.
    """

    width: int
    heads: int
    hidden: int
    layers: int
    outputs: int

    def setup(self):
        """One block a layer, and a head."""
        self.blocks = [
            Block(self.width, self.heads, self.hidden) for _ in range(self.layers)
        ]
        self.head_hidden = nn.Dense(self.hidden)
        self.head = nn.Dense(self.outputs)

    def __call__(self, context, targets, mask=None):
        """[m, width], [n, width] -> [n, outputs]."""
        return self.read(self.encode(context, mask), targets, mask)

    def encode(self, context, mask=None):
        """[m, width] -> states [layers, m, width], what each layer looks at."""
        states = []
        for block in self.blocks:
            states.append(context)
            context = block(context, context, mask)
        return jnp.stack(states)

    def read(self, states, targets, mask=None):
        """States, [n, width] -> [n, outputs]."""
        for i, block in enumerate(self.blocks):
            targets = block(targets, states[i], mask)
        return self.head(nn.relu(self.head_hidden(targets)))


class Transformer(nn.Module):
    """Examples that all look at each other."""

    outputs: int
    width: int
    heads: int
    layers: int

    @nn.compact
    def __call__(self, x, mask=None):
        """[n, ...] -> [n, outputs]."""
        x = nn.Dense(self.width, name="embed")(jnp.reshape(x, (len(x), -1)))
        for i in range(self.layers):
            block = Block(self.width, self.heads, 2 * self.width, name=f"block{i + 1}")
            x = block(x, x, mask)
        return nn.Dense(self.outputs, name="head")(x)


class SetEncoder(nn.Module):
    """Dense layers for each example, their mean, dense layers of the mean.

    Zaheer et al. 2017, Deep Sets, arXiv 1703.06114, theorem 2. With heads, the examples
    look at each other before the mean.
    """

    outputs: int
    hidden: tuple[int, ...]
    after: tuple[int, ...]
    heads: int = 0

    @nn.compact
    def __call__(self, x, mask=None):
        """[n, ...] -> [outputs]."""
        x = jnp.reshape(x, (len(x), -1))
        for i, width in enumerate(self.hidden, start=1):
            x = nn.Dense(width, name=f"dense{i}")(x)
            x = nn.relu(x) if self.heads or i < len(self.hidden) else x
        if self.heads:
            x = SetToSet(x.shape[-1], self.heads, name="set_to_set")(x, mask)
        counts = jnp.ones(len(x), x.dtype) if mask is None else (mask > 0) * 1
        total = jnp.sum(jnp.where(counts[:, None] > 0, x, 0), axis=0, keepdims=True)
        x = total / jnp.maximum(jnp.sum(counts), 1).astype(x.dtype)
        for i, width in enumerate(self.after, start=1):
            x = nn.relu(nn.Dense(width, name=f"after{i}")(x))
        return nn.Dense(self.outputs, name="head")(x)[0]


class CrossAttention(nn.Module):
    """Queries look at a set; queries and keys through dense layers, values as they are."""

    width: int
    heads: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, queries, keys, values, mask=None):
        """[n, a], [m, a], [m, b] -> [n, width]."""

        def embed(x):
            for layer in layers[:-1]:
                x = nn.relu(layer(x))
            return layers[-1](x)

        sizes = (*self.hidden, self.width)
        layers = [nn.Dense(w, name=f"dense{i}") for i, w in enumerate(sizes, start=1)]
        attend = MultiHead(self.width, self.heads, name="attention")
        return attend(embed(queries), embed(keys), values, mask)
