"""What of a network moves when it is fine-tuned: one partition of its parameters each.

A partition says how the full parameters follow from fewer numbers, the ones that move:

    theta = merge(theta_0, moved),   theta_0 = merge(theta_0, init(theta_0))

It knows arrays and their names, not the network. `theta_0` is what was pre-trained, and
stays; what is trained is `moved`, a tree like the parameters without what is fixed.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, keys
from jaxmeta.boundary import remembered
from jaxmeta.transfer import trees
from jaxmeta.transfer.trees import Path
from jaxmeta.types import PyTree


class Partition(NamedTuple):
    """Two pure functions of a tree of parameters.

    init: (params, key=None) -> moved, where training starts; merged it is `params` again.
        Of a dict of layers it has those that move, under their names.
    merge: (params, moved) -> params, all of them; what does not move is left as it is.
    """

    init: Callable[..., PyTree]
    merge: Callable[[PyTree, PyTree], PyTree]


@remembered
def full() -> Partition:
    """All parameters move, each as it is.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp(2, 3, hidden=(4,)).init(jax.random.key(0))
    >>> moved = full().init(params)
    >>> sorted(moved)
    ['dense1', 'head']
    """
    return _of_arrays("full", lambda path, w, key: w, lambda w, m: m)


@remembered
def linear_probe(head: str = "head", *, fresh: bool = False) -> Partition:
    """The last layer moves: a linear classifier on features that are fixed.

    Args: head: name of the layer; fresh: start it from zeros (a new task's), the only
        partition then whose start is not `params`.
    Raises: ValueError, in `init`, for parameters without a layer of that name.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp(2, 3, hidden=(4,)).init(jax.random.key(0))
    >>> jax.tree.map(lambda a: a.shape, linear_probe().init(params))
    {'head': {'bias': (3,), 'kernel': (4, 3)}}
    """
    checks.check_names(head=head)
    checks.check_flags(fresh=fresh)

    def init(params, key=None):
        del key
        _check_head("linear_probe", params, head)
        layer = params[head]
        return {head: jax.tree.map(jnp.zeros_like, layer) if fresh else layer}

    return Partition(init, lambda params, moved: trees.filled(params, moved))


@remembered
def bitfit(*, head: str | None = None) -> Partition:
    """Vectors move: biases, and the scales and offsets of norms.

    Ben Zaken, Ravfogel, Goldberg. BitFit: Simple Parameter-efficient Fine-tuning for
    Transformer-based Masked Language-models. ACL 2022, arXiv 2106.10199, section 3: the
    bias terms b of each layer, and the classifier. Departure: scales of norms move too.

    Args: head: a layer all of which moves, the task's classifier; None = none.
    Raises: ValueError, in `init`, for parameters without vectors, or without that layer.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp(2, 3, hidden=(4,)).init(jax.random.key(0))
    >>> jax.tree.map(lambda a: a.shape, bitfit().init(params))
    {'dense1': {'bias': (4,)}, 'head': {'bias': (3,)}}
    """
    start = lambda path, w, key: w if _is_vector(path, w) else None
    return _of_arrays("bitfit", start, lambda w, m: m, head)


@remembered
def film(*, head: str | None = None) -> Partition:
    """A scale and a shift of each channel move, those of a kernel's outputs.

    Perez, Strub, de Vries, Dumoulin, Courville. FiLM: Visual Reasoning with a General
    Conditioning Layer. AAAI 2018, arXiv 1709.07871. Equation 2 on what a layer makes,
    FiLM(F) = gamma F + beta, as parameters of the layer:

        W_c (1 + gamma_c),   v + beta        v: a bias, a norm's scale or offset

    A norm behind a kernel takes gamma out again; its own scale and offset then do it.

    Args, raises: as `bitfit`. `moved` has [out] for each kernel [..., in, out].

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp(2, 3, hidden=(4,)).init(jax.random.key(0))
    >>> jax.tree.map(lambda a: a.shape, film().init(params)["head"])
    {'bias': (3,), 'kernel': (3,)}
    """

    def start(path, w, key):
        del key
        return jnp.zeros(w.shape if _is_vector(path, w) else w.shape[-1:], w.dtype)

    def merge(w, m):
        if w.shape == m.shape:
            return w + m
        return w * (1 + jnp.reshape(m, (1,) * (w.ndim - 1) + m.shape))

    return _of_arrays("film", start, merge, head)


@remembered
def adapters(*, head: str | None = None) -> Partition:
    """A 1x1 convolution in parallel to each larger one moves (residual adapters).

    Rebuffi, Bilen, Vedaldi. Efficient parametrization of multi-domain deep neural
    networks. CVPR 2018, arXiv 1803.10082. Section 3, y = f * x + alpha * x, is one
    convolution whose kernel has alpha [in, out] added to its centre.

    Departures: norms are fixed; theirs are each domain's own. alpha starts at 0.

    Args: head: as in `bitfit`.
    Raises: ValueError, in `init`, for parameters without a kernel [h, w, in, out] of odd
        sizes above 1, or without that layer.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.conv4(None, widths=8).init(jax.random.key(0))
    >>> adapters().init(params)["conv2"]["kernel"].shape
    (8, 8)
    """

    def start(path, w, key):
        del path, key
        space = w.shape[:-2]
        if math.prod(space) == 1 or not all(n % 2 for n in space):
            return None
        return jnp.zeros(w.shape[-2:], w.dtype)

    def merge(w, m):
        return jnp.asarray(w).at[tuple(n // 2 for n in w.shape[:-2])].add(m)

    return _of_arrays("adapters", start, merge, head)


@remembered
def lora(
    rank: int,
    *,
    layers: tuple[str, ...] | None = None,
    head: str | None = None,
    alpha: float | None = None,
) -> Partition:
    """Low-rank adaptation: a product of two thin matrices is added to each matrix.

    Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen. LoRA: Low-Rank Adaptation of Large
    Language Models. ICLR 2022, arXiv 2106.09685. Equation 3 and the scale below it:

        W_0 + alpha / r B A,   A gaussian and B = 0 at the start

    Inputs are rows here, so a kernel [in, out] gets `a` [in, r] and `b` [r, out], their
    A and B transposed. One of [h, w, in, out] is a matrix [h w in, out].

    Args:
        rank: r; a matrix of m x n gets r (m + n) numbers.
        layers: names of the layers, at any depth, whose matrices get them; None = all.
        head: a layer all of which moves, the task's classifier; None = none.
        alpha: as above; None = r, so that the product is added as it is.

    Returns: a `Partition`, whose `init` needs a key.
    Raises: ValueError for a rank below 1 or an alpha that is not positive; in `init` for
        a rank above a matrix's smaller side, or if no matrix is there.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp(8, 3, hidden=(6,)).init(jax.random.key(0))
    >>> moved = lora(2, head="head").init(params, jax.random.key(1))
    >>> jax.tree.map(lambda a: a.shape, moved["dense1"])
    {'kernel': {'a': (8, 2), 'b': (2, 6)}}
    """
    checks.check_sizes(rank=rank)
    checks.check_positive(alpha=rank if alpha is None else alpha)
    names = (layers,) if isinstance(layers, str) else layers
    scale = 1.0 if alpha is None else alpha / rank

    def start(path, w, key):
        named = names is None or any(name in path for name in names)
        if _is_vector(path, w) or not named:
            return None
        m, n = math.prod(w.shape[:-1]), w.shape[-1]
        if rank > min(m, n):
            raise ValueError(
                f"rank: {trees.said(path)} is a matrix of {m} x {n}; expected at most "
                f"{min(m, n)}, got {rank}; give a smaller one, the names of other layers "
                f"(layers=...), or let its layer move whole (head={str(*path[:1])!r})"
            )
        checks.check_key(key)
        normal = jax.random.normal(
            keys.purpose(key, trees.said(path)), (m, rank), w.dtype
        )
        return {"a": normal / math.sqrt(m), "b": jnp.zeros((rank, n), w.dtype)}

    def merge(w, m):
        return w + scale * jnp.reshape(m["a"] @ m["b"], w.shape)

    return _of_arrays("lora", start, merge, head)


def _of_arrays(
    name: str,
    start: Callable[[Path, jax.Array, jax.Array | None], PyTree],
    merge: Callable[[jax.Array, PyTree], jax.Array],
    head: str | None = None,
) -> Partition:
    """A partition that treats each array by itself.

    Args:
        name: of the partition, for sentences.
        start: (names, w, key) -> what moves of an array, None = nothing.
        merge: (w, what moved of it) -> w.
        head: a layer that moves as it is, whatever `start` says.
    """
    if head is not None:
        checks.check_names(head=head)

    def init(params, key=None):
        _check_head(name, params, head)
        whole = lambda path: head is not None and path[:1] == (head,)
        pick = lambda path, w: None if whole(path) else start(path, w, key)
        moved = trees.picked(pick, params)
        if not jax.tree.leaves(moved):
            found = [
                f"{trees.said(path)} {w.shape}" for path, w in trees.arrays(params)
            ]
            raise ValueError(
                f"{name}: nothing of these parameters would move; got {checks.few(found)}"
            )
        return moved if head is None else {**moved, head: params[head]}

    def put(path, w, m):
        whole = head is not None and path[:1] == (head,)
        return m if whole else merge(w, m)

    return Partition(init, lambda params, moved: trees.filled(params, moved, put))


def _is_vector(path: Path, w: jax.Array) -> bool:
    """Whether an array is no matrix of weights; a bias may have axes (heads, numbers)."""
    return w.ndim < 2 or "bias" in path[-1:]


def _check_head(name: str, params: PyTree, head: str | None) -> None:
    """Raise ValueError unless the parameters are a dict with that layer."""
    if head is None:
        return
    layers = sorted(map(str, params)) if isinstance(params, Mapping) else []
    if head not in layers:
        raise ValueError(
            f"head: {name} moves a layer {head!r} that is not there; expected one of "
            f"{checks.few(layers, 8) or 'a dict, the parameters have no named layers'}"
        )
