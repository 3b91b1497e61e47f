"""The networks of the few-shot papers, as Flax Linen modules and as `Model`s."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.defaults import ConvMethod
from jaxmeta.models import layers


class MLP(nn.Module):
    """Dense layers with relu between; the last one is called `head`."""

    hidden: tuple[int, ...]
    outputs: int
    context: int = 0
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x):
        """[n, ...] -> [n, outputs]; inputs are flattened."""
        x = jnp.reshape(x, (x.shape[0], -1))
        if self.context:
            phi = self.param("context", nn.initializers.zeros_init(), (self.context,))
            rows = jnp.broadcast_to(phi, (len(x), self.context))
            x = jnp.concatenate([x, rows], axis=1)
        for i, width in enumerate(self.hidden):
            x = self.activation(nn.Dense(width, name=f"dense{i + 1}")(x))
        return nn.Dense(self.outputs, name="head")(x)


class Kernel(nn.Module):
    """The weights of a 3x3 convolution. Batch norm follows each, which takes the bias
    out again, so it is there for the papers' parameter trees and never added."""

    width: int

    @nn.compact
    def __call__(self, channels):
        """-> [3, 3, channels, width]."""
        self.param("bias", nn.initializers.zeros_init(), (self.width,))
        shape = (3, 3, channels, self.width)
        return self.param("kernel", nn.initializers.glorot_uniform(), shape)


class Affine(nn.Module):
    """Learned scale and offset of batch norm; no running state."""

    width: int

    @nn.compact
    def __call__(self):
        """-> [width], [width]."""
        scale = self.param("scale", nn.initializers.ones_init(), (self.width,))
        return scale, self.param("offset", nn.initializers.zeros_init(), (self.width,))


class Conv4(nn.Module):
    """Four blocks of conv 3x3, batch norm, relu, down-sampling; then a head or none."""

    outputs: int | None
    widths: tuple[int, ...]
    strided: bool
    method: ConvMethod | None
    context: int = 0
    pools: int = 4
    grid: bool = False

    @nn.compact
    def __call__(self, x, mask=None):
        """[n, h, w, c] -> [n, outputs], or [n, features] or a grid without a head."""
        x = jnp.transpose(x, (1, 2, 0, 3))  # see `layers`
        for i, width in enumerate(self.widths, start=1):
            kernel = Kernel(width, name=f"conv{i}")(x.shape[-1])
            affine = Affine(width, name=f"norm{i}")()
            x = layers.conv_block(
                x,
                kernel,
                *affine,
                mask,
                stride=2 if self.strided else 1,
                pool=not self.strided and i <= self.pools,
                method=self.method,
            )
            if self.context and i == 3:
                x = FiLM(self.context, name="film")(x, self._phi())
        if self.grid:
            return jnp.transpose(x, (2, 0, 1, 3))
        x = jnp.mean(x, axis=(0, 1)) if self.strided else _flatten(x)
        return x if self.outputs is None else nn.Dense(self.outputs, name="head")(x)

    def _phi(self):
        return self.param("context", nn.initializers.zeros_init(), (self.context,))


class RelationModule(nn.Module):
    """Two blocks of conv 3x3, batch norm, relu, pooling; two dense layers."""

    width: int
    hidden: int

    @nn.compact
    def __call__(self, x, mask=None):
        """[n, h, w, c] -> [n, 1]."""
        x = jnp.transpose(x, (1, 2, 0, 3))
        for i in (1, 2):
            kernel = Kernel(self.width, name=f"conv{i}")(x.shape[-1])
            affine = Affine(self.width, name=f"norm{i}")()
            pool = min(x.shape[:2]) > 1
            x = layers.conv_block(x, kernel, *affine, mask, pool=pool)
        x = nn.relu(nn.Dense(self.hidden, name="dense")(_flatten(x)))
        return nn.Dense(1, name="head")(x)


class FiLM(nn.Module):
    """Scale and shift of channels by context parameters; at first none for zeros.

    Perez et al. 2018, arXiv 1709.07871.
    """

    context: int

    @nn.compact
    def __call__(self, x, phi):
        """[..., channels], [context] -> [..., channels]."""
        channels = x.shape[-1]
        scale, shift = jnp.split(nn.Dense(2 * channels, name="layer")(phi[None]), 2, 1)
        shape = (*(1,) * (x.ndim - 1), channels)
        return x * (1 + jnp.reshape(scale, shape)) + jnp.reshape(shift, shape)


def _flatten(x):
    """[h, w, n, c] -> [n, h * w * c]."""
    return jnp.reshape(jnp.transpose(x, (2, 0, 1, 3)), (x.shape[2], -1))


def init_params(module: nn.Module, key: jax.Array, input_shape: tuple[int, ...]):
    """The `params` collection of a Linen module, initialised on one blank example."""
    return module.init(key, jnp.zeros((1, *input_shape)))["params"]
