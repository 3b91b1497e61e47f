"""Layers that are exact and fast when every task has its own weights.

Under vmap over tasks a convolution's kernels get a task axis, and `lax` turns it into
a grouped convolution, which is slow on CPU and GPU alike. Sums of shifted slices times
matrices stay batched matrix products. All functions are pure: (weights, x) -> y.
Images are NHWC, kernels HWIO.
"""

from typing import Literal

import jax
import jax.numpy as jnp

ConvMethod = Literal["patches", "lax"]
# 4 to 20 times faster than "lax" on a CPU (benchmarks/meta_step.py); on accelerators the
# default is the same, since grouped convolutions are slow backwards there too.
DEFAULT_CONV: ConvMethod = "patches"


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    method: ConvMethod | None = None,
) -> jax.Array:
    """3x3 convolution (cross-correlation), zero padding 1, no bias.

    Args:
        x: [n, h, w, in]. kernel: [3, 3, in, out].
        stride: 1 keeps h and w, 2 halves them (rounded up).
        method: "patches", one matrix product over all nine shifts; "lax", XLA's
            convolution, for weights that all tasks share. None = the default.

    Returns: [n, ceil(h / stride), ceil(w / stride), out].
    Raises: ValueError for an unknown method.

    >>> import jax.numpy as jnp
    >>> conv3x3(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    method = method or DEFAULT_CONV
    if method == "lax":
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    if method != "patches":
        raise ValueError(f"conv: expected 'patches' or 'lax', got {method!r}")
    n, height, width, channels = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def shifted(a, i, axis, size):  # every stride-th entry from i on
        last = i + stride * (size - 1) + 1
        return jax.lax.slice_in_dim(a, i, last, stride, axis=axis)

    columns = [shifted(padded, j, 2, out_width) for j in range(3)]
    rows = jnp.concatenate(columns, axis=-1)  # [n, h + 2, out_w, 3 * in]
    patches = [shifted(rows, i, 1, out_height) for i in range(3)]
    patches = jnp.concatenate(patches, axis=-1)  # [n, out_h, out_w, 9 * in]
    y = jnp.reshape(patches, (-1, 9 * channels)) @ jnp.reshape(
        kernel, (9 * channels, -1)
    )
    return jnp.reshape(y, (n, out_height, out_width, -1))


def max_pool2x2(x: jax.Array) -> jax.Array:
    """2x2 max-pooling with stride 2; an odd last row or column is dropped.

    Of equal values the first (in row-major order) gets the gradient. Written with `where`
    because `reduce_window` is slow under double differentiation, and `max` over a
    reshaped axis gave wrong meta-gradients in float32 (ties broken differently when
    XLA computes its operand again).

    Args: x [n, h, w, c]. Returns: [n, h // 2, w // 2, c].
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    x = _larger(x[:, :, 0::2], x[:, :, 1::2])
    return _larger(x[:, 0::2], x[:, 1::2])


def _larger(a, b):
    return jnp.where(a >= b, a, b)


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    mask: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """Batch norm over the batch at hand, never over tasks, with biased variance.

    Args:
        x: [n, ..., c]. scale and offset: [c].
        mask: [n] or None; examples with mask 0 stay out of the statistics.
        eps: added to the variance inside the root.

    Returns: like x.
    """
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        mean = jnp.mean(x, axis=axes, keepdims=True)
        variance = jnp.mean(jnp.square(x - mean), axis=axes, keepdims=True)
    else:
        keep = jnp.reshape(mask, (-1,) + (1,) * (x.ndim - 1)) > 0
        size = jnp.maximum(jnp.sum(keep), 1) * (x[0, ..., 0].size)
        total = lambda a: jnp.sum(jnp.where(keep, a, 0), axis=axes, keepdims=True)
        mean = total(x) / size.astype(x.dtype)
        variance = total(jnp.square(x - mean)) / size.astype(x.dtype)
    last = lambda a: jnp.reshape(a, (1,) * (x.ndim - 1) + (-1,))
    return (x - mean) * (jax.lax.rsqrt(variance + eps) * last(scale)) + last(offset)
