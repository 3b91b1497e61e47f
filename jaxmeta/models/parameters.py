"""What our networks are made of: parameters that are described before they have values.

A network is a description, a tree of `Parameter`s, and a function of the same tree filled
with arrays. `network` makes a `Model` of the two: names and shapes are written once, and
`apply` can say which parameter does not fit.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from jaxmeta import checks
from jaxmeta.batches import to_device
from jaxmeta.boundary import is_tracing
from jaxmeta.types import Model, PyTree


@dataclass(frozen=True)
class Parameter:
    """One array of a network.

    shape: of the array. start: (key, shape, dtype) -> array, as `jax.nn.initializers`.
    place: which parameter of its layer it is, counted from 1, see `key_of`.
    dtype: None = JAX's default of floating numbers.
    """

    shape: tuple[int, ...]
    start: Callable[..., jax.Array] = initializers.zeros
    place: int = 1
    dtype: Any = None


LECUN, GLOROT = initializers.lecun_normal(), initializers.glorot_uniform()
KAIMING = initializers.kaiming_normal()
CONSTANTS = {initializers.zeros: 0.0, initializers.ones: 1.0}
VARIANCES = {  # of an array by its inputs and outputs; only Glorot's is uniform
    LECUN: lambda fan_in, fan_out: 1.0 / fan_in,
    KAIMING: lambda fan_in, fan_out: 2.0 / fan_in,
    GLOROT: lambda fan_in, fan_out: 2.0 / (fan_in + fan_out),
}

# Dense layers and layer norms start in float32 even where JAX computes in float64, as
# those of Flax do.


def dense(inputs: int, outputs: int) -> dict[str, Parameter]:
    """Parameters of `layers.dense`: `kernel` [inputs, outputs], `bias` [outputs]."""
    return {
        "kernel": Parameter((inputs, outputs), LECUN, 1, jnp.float32),
        "bias": Parameter((outputs,), place=2, dtype=jnp.float32),
    }


def conv(channels: int, width: int) -> dict[str, Parameter]:
    """Parameters of a 3x3 convolution: `kernel` [3, 3, channels, width], `bias` [width].

    Batch norm follows each convolution, which takes the bias out again, so it is there
    for the papers' parameter trees and never added.
    """
    kernel = Parameter((3, 3, channels, width), GLOROT, 2)
    return {"bias": Parameter((width,)), "kernel": kernel}


def batch_norm(width: int) -> dict[str, Parameter]:
    """Parameters of `layers.batch_norm`: `scale` and `offset` [width]; no running state."""
    scale = Parameter((width,), initializers.ones)
    return {"scale": scale, "offset": Parameter((width,), place=2)}


def layer_norm(width: int) -> dict[str, Parameter]:
    """Parameters of `layers.layer_norm`: `scale` and `bias` [width]."""
    scale = Parameter((width,), initializers.ones, 1, jnp.float32)
    return {"scale": scale, "bias": Parameter((width,), place=2, dtype=jnp.float32)}


def fill(description: PyTree, key: jax.Array) -> PyTree:
    """The first values of parameters: dicts of `Parameter`s -> dicts of arrays."""

    def first(path, parameter):
        if parameter.start in CONSTANTS:
            value, dtype = CONSTANTS[parameter.start], parameter.dtype or float
            return to_device(np.full(parameter.shape, value, dtype))
        layer = [step.key for step in path[:-1]]
        own = key_of(key, *layer, parameter.place)
        return drawn(own, parameter.start, parameter.shape, parameter.dtype)

    return jax.tree_util.tree_map_with_path(first, description)


def drawn(
    key: jax.Array, start: Callable[..., jax.Array], shape: tuple[int, ...], dtype=None
) -> jax.Array:
    """`start(key, shape, dtype)`, the same bits with hardly anything to compile.

    Number i of a draw by threefry depends on key and i alone. So outside jit one program
    serves arrays of any shape, up to a size, of this network and of the next.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype or float)
    ours = start in VARIANCES and len(shape) > 1 and math.prod(shape) > 0
    ours = ours and jnp.issubdtype(dtype, jnp.floating)
    if is_tracing() or not (ours and _counts(key)):
        return _drawn(key, start, shape, dtype)
    size, receptive = math.prod(shape), math.prod(shape[:-2])
    unit = np.asarray(_unit(key, start is GLOROT, _enough(size), dtype))[:size]
    fans = (receptive * n for n in shape[-2:])
    variance = np.asarray(VARIANCES[start](*fans), dtype)
    normal = lambda: np.sqrt(variance) / np.asarray(0.87962566103423978, dtype)
    spread = np.sqrt(3 * variance) if start is GLOROT else normal()
    array = to_device(unit.reshape(shape) * spread)
    return jax.device_put(array, key.sharding) if key.committed else array


def _enough(size: int) -> int:
    """One of few sizes that is no smaller: a power of four, or so many millions."""
    if size > 1 << 20:
        return -(-size >> 20) << 20
    return max(256, 4 ** math.ceil(math.log(size, 4)))


def glorot(key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
    """Uniform weights of a layer."""
    return drawn(key, GLOROT, shape, dtype)


def _counts(key: jax.Array) -> bool:
    """Whether its random numbers are a function of their place, as above."""
    threefry = str(jax.random.key_impl(key)) in ("fry", "threefry2x32")
    return threefry and jax.config.values.get("jax_threefry_partitionable", True)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _unit(key, uniform, size, dtype):
    """Numbers to be scaled: uniform in [-1, 1), or normal within two deviations, which
    makes the deviation smaller."""
    if uniform:
        return jax.random.uniform(key, (size,), dtype, -1)
    return jax.random.truncated_normal(key, -2, 2, (size,), dtype)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _drawn(key, start, shape, dtype):
    return start(key, shape, dtype)


def key_of(key: jax.Array, *path: str | int) -> jax.Array:
    """The key of a parameter, from the names of its layer and its place in it.

    This is how Flax Linen derives keys. Our networks once were Linen modules, and with
    its rule a key still gives the numbers with which published runs started.

    Args: key: of the network. path: names, from the outermost, then a place below 256.
    """
    steps = (p.encode() if isinstance(p, str) else bytes([p]) for p in path)
    digest = hashlib.sha1(b"".join(steps), usedforsecurity=False).digest()
    return jax.random.fold_in(key, np.uint32(int.from_bytes(digest[:4], "big")))


def shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """path -> shape of each leaf, an array or a `Parameter`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}


def check_params(description: PyTree, params: PyTree) -> None:
    """Raise ValueError unless params has each array described; more are no harm."""
    found = shapes(params)
    for path, shape in shapes(description).items():
        if found.get(path) != shape:
            got = f"one of {found[path]}" if path in found else "none"
            raise ValueError(
                "params: expected those of this network, as init(key) makes them, got "
                f"others: {path} is an array of {shape}, got {got}"
            )


def check_fits(argument: str, given: PyTree, wanted: PyTree) -> None:
    """Raise ValueError unless a tree has the arrays that are wanted, naming the first."""
    found, expected = shapes(given), shapes(wanted)
    names = dict.fromkeys([*found, *expected])
    wrong = [name for name in names if found.get(name) != expected.get(name)]
    if not wrong:
        return
    say = lambda shape: "none" if shape is None else f"an array of {shape}"
    first, *others = wrong
    more = f" (nor do {checks.few(others)} fit)" if others else ""
    raise ValueError(
        f"{argument}{first}: expected {say(expected.get(first))}, got "
        f"{say(found.get(first))}{more}; the model's are {', '.join(expected) or 'none'}"
    )


def network(
    description: PyTree,
    forward: Callable[..., jax.Array],
    shape: tuple[int, ...],
    argument: str = "input_shape",
    *,
    flat: bool = False,
    masks: bool = False,
) -> Model:
    """A description and its function as a `Model`, for examples of one shape.

    Args:
        description: dicts of `Parameter`s.
        forward: (params, x, mask) -> outputs, or (params, x) without masks.
        shape: of an example. argument, flat: as in `checks.check_inputs`.
        masks: what the network says of one example depends on the others.

    Raises: ValueError, when it is applied, for inputs or parameters of other shapes.
    """

    def apply(params, x, mask=None):
        checks.check_inputs(x, shape, argument, flat)
        check_params(description, params)
        return forward(params, x, mask) if masks else forward(params, x)

    return Model(partial(fill, description), apply, uses_mask=masks)


def example_shape(inputs: int | tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an example, given as a size or a shape."""
    if isinstance(inputs, (tuple, list)):
        checks.check_shapes(inputs=inputs)
        return whole(inputs)
    checks.check_sizes(inputs=inputs)
    return (int(inputs),)


def whole(sizes: Iterable[int]) -> tuple[int, ...]:
    """Sizes to compute with: as np.uint8, say, their products might overflow."""
    return tuple(map(int, sizes))
