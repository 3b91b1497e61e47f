"""Layers that are exact and fast when every task has its own weights.

Under vmap over tasks a convolution's kernels get a task axis, and `lax` turns it into
a grouped convolution, which is slow on CPU and GPU alike. Sums of shifted slices times
matrices stay batched matrix products. All functions are pure: (weights, x) -> y.

Inside a network images are HWNC: [height, width, examples, channels]. A shift of the
image is then a slice of whole slabs, and pooling takes slabs apart; in NHWC the same
passes over memory took five times as long on a CPU. Kernels are HWIO.
"""

import jax
import jax.numpy as jnp

from jaxmeta import defaults
from jaxmeta.defaults import ConvMethod


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    method: ConvMethod | None = None,
) -> jax.Array:
    """3x3 convolution (cross-correlation), zero padding 1, no bias.

    Args:
        x: [h, w, n, in]. kernel: [3, 3, in, out].
        stride: 1 keeps h and w, 2 halves them (rounded up).
        method: "patches", one matrix product over all nine shifts; "winograd", F(2x2,
            3x3), 2.25 times fewer multiplications (stride 1; with stride 2 the same
            as "patches"); "lax", XLA's convolution, for weights that all tasks share.
            None = the default for this size, see `jaxmeta.defaults`.

    Returns: [ceil(h / stride), ceil(w / stride), n, out].
    Raises: ValueError for an unknown method.

    >>> import jax.numpy as jnp
    >>> conv3x3(jnp.ones((3, 3, 1, 1)), jnp.ones((3, 3, 1, 1)))[:, :, 0, 0]
    Array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    height, width, n, channels = x.shape
    positions = n * -(-height // stride) * -(-width // stride)
    method = method or defaults.conv_method(positions, channels, stride)
    if method == "lax":
        numbers = ("NHWC", "HWIO", "NHWC")  # XLA's CPU convolution is slow on HWNC
        nhwc, pad = jnp.transpose(x, (2, 0, 1, 3)), ((1, 1), (1, 1))
        y = jax.lax.conv_general_dilated(
            nhwc, kernel, (stride, stride), pad, dimension_numbers=numbers
        )
        return jnp.transpose(y, (1, 2, 0, 3))
    if method not in ("patches", "winograd"):
        raise ValueError(
            f"conv: expected 'patches', 'winograd' or 'lax', got {method!r}"
        )
    if method == "winograd" and stride == 1:
        return _winograd(x, kernel)
    return _product(_patches(x, stride), jnp.reshape(kernel, (9 * channels, -1)))


def conv_block(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    mask: jax.Array | None = None,
    *,
    stride: int = 1,
    pool: bool = True,
    method: ConvMethod | None = None,
) -> jax.Array:
    """relu(max_pool2x2(batch_norm(conv3x3(x, kernel)))), in the fewest passes.

    Args: x, kernel, stride, method as in `conv3x3`; scale, offset, mask as in
        `batch_norm`; pool: False leaves the max-pooling out.
    Returns: [h', w', n, out].
    """
    down = max_pool2x2 if pool else lambda y: y
    if 9 * x.shape[-1] <= kernel.shape[-1] and method != "lax":
        y, shift = _conv_norm(x, kernel, scale, offset, mask, stride)
        # after the pooling: there it is a quarter of the work, backwards too
        return jax.nn.relu(down(y) + shift)
    y = conv3x3(x, kernel, stride=stride, method=method)
    return jax.nn.relu(down(batch_norm(y, scale, offset, mask)))


def _conv_norm(x, kernel, scale, offset, mask, stride, eps=1e-5):
    """Batch norm of a convolution of few channels: y and shift, whose sum it is.

    A convolution is linear in the patches p, y = W'p, so the statistics of y follow from
    those of p, and the normalisation moves into the weights:

        mean = W' mean(p),   variance_j = W'_j cov(p) W_j

    Where p has fewer numbers than y (a first layer: 9 and 64) this saves all but one of
    the passes over y, in each direction.
    """
    p = _patches(x, stride)
    k = p.shape[-1]
    w = _wide(jnp.reshape(kernel, (k, -1)))
    mean, centred, size = _centre(_wide(p), mask)
    centred = jnp.reshape(centred, (-1, k))
    covariance = centred.T @ centred / size
    variance = jnp.sum(w * (covariance @ w), axis=0)
    w = w * _row(jax.lax.rsqrt(variance + eps) * scale, 2)
    shift = offset - jnp.reshape(mean, (k,)) @ w
    return _product(p, w.astype(kernel.dtype)), _row(shift.astype(offset.dtype), 4)


def dense(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """x kernel + bias.

    Args: params: `kernel` [in, out], `bias` [out]. x: [n, in]. Returns: [n, out].
    """
    return jnp.dot(x, params["kernel"]) + params["bias"][None]


def gated(x: jax.Array) -> jax.Array:
    """tanh(f) sigmoid(g) of the halves f and g of x, [n, 2 c] -> [n, c].

    Source: van den Oord et al. 2016, arXiv 1606.05328, equation 2.
    """
    f, g = jnp.split(x, 2, axis=1)
    return jnp.tanh(f) * jax.nn.sigmoid(g)


def flatten(x: jax.Array) -> jax.Array:
    """[h, w, n, c] -> [n, h * w * c]."""
    return jnp.reshape(jnp.transpose(x, (2, 0, 1, 3)), (x.shape[2], -1))


def max_pool2x2(x: jax.Array) -> jax.Array:
    """2x2 max-pooling with stride 2; an odd last row or column is dropped.

    Of equal values the first (in row-major order) gets the gradient. Written with `where`
    because `reduce_window` is slow under double differentiation, and `max` over a
    reshaped axis gave wrong meta-gradients in float32 (ties broken differently when
    XLA computes its operand again).

    Args: x [h, w, n, c]. Returns: [h // 2, w // 2, n, c].
    """
    height, width = x.shape[0] // 2, x.shape[1] // 2
    x = x[: 2 * height, : 2 * width]
    x = jnp.reshape(x, (height, 2, width, 2, *x.shape[2:]))
    top, bottom = (_larger(x[:, i, :, 0], x[:, i, :, 1]) for i in (0, 1))
    return _larger(top, bottom)


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    mask: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """Batch norm over the batch at hand, never over tasks, with biased variance.

    Statistics are at least float32 also where x is of half precision.

    Args:
        x: [..., n, c]. scale and offset: [c].
        mask: [n] or None; examples with mask 0 stay out of the statistics.
        eps: added to the variance inside the root.

    Returns: like x.
    """
    wide = _wide(x)
    mean, centred, size = _centre(wide, mask)
    variance = jnp.sum(jnp.square(centred), axis=tuple(range(x.ndim - 1))) / size
    factor = jax.lax.rsqrt(variance + eps) * scale
    y = (wide - mean) * _row(factor, x.ndim) + _row(offset, x.ndim)
    return y.astype(jnp.result_type(x, scale, offset))


def layer_norm(
    params: dict[str, jax.Array], x: jax.Array, eps: float = 1e-6
) -> jax.Array:
    """Norm of each row over its columns, with biased variance.

    Statistics are at least float32 also where x is of half precision.

    Args:
        params: `scale` and `bias` [c]. x: [n, c].
        eps: added to the variance inside the root.

    Returns: like x. Source: Ba, Kiros, Hinton 2016, arXiv 1607.06450.
    """
    wide = _wide(x)
    mean = jnp.mean(wide, axis=1, keepdims=True)
    square = jnp.mean(jnp.square(wide), axis=1, keepdims=True)
    variance = jnp.maximum(square - jnp.square(mean), 0)
    factor = jax.lax.rsqrt(variance + eps) * params["scale"][None]
    y = (x - mean) * factor + params["bias"][None]
    return y.astype(jnp.result_type(x, params["scale"], params["bias"]))


def _wide(x):
    """At least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _centre(x, mask):
    """mean [1, ..., c], x - mean (0 where masked), and how many values a channel has."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        mean = jnp.mean(x, axis=axes, keepdims=True)
        return mean, x - mean, x[..., 0].size
    keep = jnp.reshape(mask, (-1, 1)) > 0
    keep = jnp.reshape(keep, (1,) * (x.ndim - 2) + keep.shape)
    size = (jnp.maximum(jnp.sum(keep), 1) * x[..., 0, 0].size).astype(x.dtype)
    mean = jnp.sum(jnp.where(keep, x, 0), axis=axes, keepdims=True) / size
    return mean, jnp.where(keep, x - mean, 0), size


def _patches(x, stride=1):
    """[h, w, n, c] -> [h / stride, w / stride, n, 9 * c], the nine shifts side by side."""
    height, width = x.shape[:2]
    x = jnp.pad(x, ((1, 1), (1, 1), (0, 0), (0, 0)))
    shifts = [
        x[i : i + height : stride, j : j + width : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(shifts, axis=-1)


def _winograd(x, kernel):
    """Winograd's minimal filtering: a 4x4 tile d gives 2x2 outputs with 16 products,

        Y = A' [(G g G') * (B' d B)] A,

    each * a matrix product over channels. Tiles start at every second row and column.
    Source: Lavin and Gray 2016, arXiv 1509.09308, equations 8 to 10.
    """
    height, width, n, _ = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    pad = ((1, 2 * rows + 1 - height), (1, 2 * columns + 1 - width), (0, 0), (0, 0))
    halves = jnp.reshape(jnp.pad(x, pad), (rows + 1, 2, columns + 1, 2, n, -1))

    def corner(i, j):  # entry (i, j) of all tiles
        a, b = i // 2, j // 2
        return halves[a : a + rows, i % 2, b : b + columns, j % 2]

    tiles = [[corner(i, j) for j in range(4)] for i in range(4)]
    inputs, weights = (
        _both_axes(_input_transform, tiles),
        _both_axes(_kernel_transform, kernel),
    )
    products = [
        [_product(v, u) for v, u in zip(*row, strict=True)]
        for row in zip(inputs, weights, strict=True)
    ]
    y = _both_axes(_output_transform, products)  # 2 x 2, each [rows, columns, n, out]
    y = jnp.stack([jnp.stack(row, axis=2) for row in y], axis=1)
    return jnp.reshape(y, (2 * rows, 2 * columns, n, -1))[:height, :width]


# Each is a matrix times a vector of arrays, written out: XLA fuses these sums into the
# passes beside them, where a product with a 4 x 4 matrix would be a pass of its own.
def _input_transform(d):
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _kernel_transform(g):
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]


def _output_transform(m):
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _both_axes(transform, grid):
    """A one-dimensional transform over the rows, then over the columns of a grid."""
    rows = [transform(row) for row in grid]
    return zip(*(transform(column) for column in zip(*rows, strict=True)), strict=True)


def _product(x, w):
    """[..., k] times [k, out] as one matrix product."""
    y = jnp.reshape(x, (-1, x.shape[-1])) @ w
    return jnp.reshape(y, (*x.shape[:-1], -1))


def _row(a, ndim):
    return jnp.reshape(a, (1,) * (ndim - 1) + (-1,))


def _larger(a, b):
    return jnp.where(a >= b, a, b)
