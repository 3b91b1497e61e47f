"""The networks of the few-shot papers, as Flax Linen modules and as `Model`s."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.models import layers


class MLP(nn.Module):
    """Dense layers with relu between; the last one is called `head`."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x):
        """[n, ...] -> [n, outputs]; inputs are flattened."""
        x = jnp.reshape(x, (x.shape[0], -1))
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"dense{i + 1}")(x))
        return nn.Dense(self.outputs, name="head")(x)


class Conv(nn.Module):
    """3x3 convolution with bias, see `layers.conv3x3`."""

    width: int
    stride: int
    method: layers.ConvMethod | None

    @nn.compact
    def __call__(self, x):
        """[n, h, w, in] -> [n, h / stride, w / stride, width]."""
        shape = (3, 3, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        y = layers.conv3x3(x, kernel, stride=self.stride, method=self.method)
        return y + jnp.reshape(bias, (1, 1, 1, -1))


class BatchNorm(nn.Module):
    """Batch norm over the batch at hand: learned scale and offset, no running state."""

    @nn.compact
    def __call__(self, x, mask=None):
        """[n, ..., c] -> the same shape."""
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        offset = self.param("offset", nn.initializers.zeros_init(), (x.shape[-1],))
        return layers.batch_norm(x, scale, offset, mask)


class Conv4(nn.Module):
    """Four blocks of conv 3x3, batch norm, relu, down-sampling; then a head or none."""

    outputs: int | None
    widths: tuple[int, ...]
    strided: bool
    method: layers.ConvMethod | None

    @nn.compact
    def __call__(self, x, mask=None):
        """[n, h, w, c] -> [n, outputs], or [n, features] without a head."""
        for i, width in enumerate(self.widths, start=1):
            stride = 2 if self.strided else 1
            x = Conv(width, stride, self.method, name=f"conv{i}")(x)
            x = BatchNorm(name=f"norm{i}")(x, mask)
            # max and relu commute; relu on a quarter of the values is cheaper
            x = nn.relu(x if self.strided else layers.max_pool2x2(x))
        x = jnp.mean(x, axis=(1, 2)) if self.strided else jnp.reshape(x, (len(x), -1))
        return x if self.outputs is None else nn.Dense(self.outputs, name="head")(x)


def init_params(module: nn.Module, key: jax.Array, input_shape: tuple[int, ...]):
    """The `params` collection of a Linen module, initialised on one blank example."""
    return module.init(key, jnp.zeros((1, *input_shape)))["params"]
