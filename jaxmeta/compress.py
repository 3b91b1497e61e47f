"""Parameters made small for where they are used: eight bits a weight, or fewer weights.

Eight bits, symmetric, with a scale for each output of a layer: Krishnamoorthi. Quantizing
deep convolutional networks for efficient inference. 2018, arXiv 1806.08342, section 3.1.
Left out by magnitude: Han, Pool, Tran, Dally. Learning both Weights and Connections for
Efficient Neural Networks. NeurIPS 2015, arXiv 1506.02626, which trains on with what is left.

Both take parameters of any learner or network and are meant for the end of training: what
comes out is adapted and predicts as before, from weights that are a little wrong.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.types import PyTree

LARGEST = 127


class Int8(NamedTuple):
    """Weights of eight bits: the array is values * scale."""

    values: jax.Array  # [..., outputs] int8
    scale: jax.Array  # [1, ..., outputs], of the type that the weights had


def to_int8(params: PyTree) -> PyTree:
    """Weights in eight bits, a quarter of the bytes of single precision.

    Args:
        params: any pytree. Its floating arrays of two dimensions and more (kernels; the
            last dimension is the outputs) become `Int8`, the others stay.

    Returns: the same tree with `Int8` in place of arrays; `from_int8` makes arrays again,
        no weight of which is more than scale / 2, and the rounding of its type, from what
        it was. Outputs with a weight that is not finite are NaN.

    >>> import jax.numpy as jnp, jaxmeta as jm
    >>> small = jm.to_int8({"kernel": jnp.array([[1.0, 0.0], [-0.5, 0.0]])})
    >>> small["kernel"].values.tolist()
    [[127, 0], [-64, 0]]
    >>> round(float(jm.from_int8(small)["kernel"][1, 0]), 4)
    -0.5039
    """
    return jax.tree.map(lambda a: _rounded(a) if _is_kernel(a) else a, params)


def from_int8(params: PyTree) -> PyTree:
    """Arrays in place of `Int8`, of the shapes and types that `to_int8` was given."""
    is_small = lambda a: isinstance(a, Int8)
    whole = lambda a: a.values.astype(a.scale.dtype) * a.scale if is_small(a) else a
    return jax.tree.map(whole, params, is_leaf=is_small)


def prune(params: PyTree, share: float = 0.5) -> PyTree:
    """Parameters with a share of each kernel's weights, the smallest, set to zero.

    Args:
        params: any pytree, as in `to_int8`.
        share: of the weights of each kernel, in [0, 1); rounded to whole weights.

    Returns: the same tree. Trained on with `zeros_stay`, it gets back most of what it lost.
    Raises: ValueError for a share that is not in [0, 1).

    >>> import jax.numpy as jnp, jaxmeta as jm
    >>> jm.prune({"kernel": jnp.array([[3.0, -1.0], [0.5, -2.0]])})["kernel"].tolist()
    [[3.0, 0.0], [0.0, -2.0]]
    """
    checks.check_numbers(least=0, below=1, share=share)
    return jax.tree.map(lambda a: _thinned(a, share) if _is_kernel(a) else a, params)


def zeros_stay() -> optax.GradientTransformation:
    """The last link of an optimiser that leaves the zeros of kernels where they are.

    Also those of a kernel that starts at zero, as the second one of LoRA does: train such
    first.

    >>> import jax, optax, jaxmeta as jm
    >>> network = jm.models.mlp(hidden=(8,))
    >>> thin = jm.prune(network.init(jax.random.key(0)), 0.5)
    >>> network = network._replace(init=lambda key: thin)
    >>> learner = jm.maml(network, inner_lr=0.01, loss=jm.losses.mse)
    >>> optimizer = optax.chain(optax.adam(1e-3), jm.zeros_stay())
    >>> state = jm.fit(
    ...     learner, jm.tasks.sinusoid(), optimizer, steps=3, key=jax.random.key(1)
    ... )
    >>> int((state.params["dense1"]["kernel"] == 0).sum())
    4
    """

    def update(updates, params):
        stay = lambda u, p: jnp.where(p == 0, 0, u) if _is_kernel(p) else u
        return jax.tree.map(stay, updates, params)

    return optax.stateless(update)


def _is_kernel(a) -> bool:
    return jnp.ndim(a) >= 2 and jnp.issubdtype(jnp.result_type(a), jnp.floating)


def _rounded(a: jax.Array) -> Int8:
    a = jnp.asarray(a)
    largest = jnp.max(jnp.abs(a), axis=range(a.ndim - 1), keepdims=True)
    # not "largest > 0": weights that are not finite shall not become numbers
    scale = jnp.where(largest == 0, 1, largest / LARGEST).astype(a.dtype)
    return Int8(jnp.round(a / scale).astype(jnp.int8), scale)


def _thinned(a: jax.Array, share: float) -> jax.Array:
    a = jnp.asarray(a)
    smallest_first = jnp.argsort(jnp.abs(a).ravel())
    gone = smallest_first[: round(share * a.size)]
    return a.ravel().at[gone].set(0).reshape(a.shape)
