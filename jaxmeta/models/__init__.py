"""Networks as `Model`s. A learner needs only `Model`, so any of them can be swapped.

Flax is imported when a model is made, not when jaxmeta is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.defaults import ConvMethod
from jaxmeta.models.adapters import from_functions as from_functions
from jaxmeta.models.adapters import from_linen as from_linen
from jaxmeta.models.adapters import from_nnx as from_nnx
from jaxmeta.models.adapters import pretrained as pretrained
from jaxmeta.statistics import normalised_by as normalised_by
from jaxmeta.types import Model

PyTree = Any


@remembered
def mlp(
    inputs: int | tuple[int, ...] = 1,
    outputs: int = 1,
    hidden: tuple[int, ...] = (40, 40),
    *,
    context: int = 0,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Model:
    """Multi-layer perceptron; by default the 1-40-40-1 of the sinusoids, with relu.

    Args:
        inputs: size of an example, or its shape (it is flattened).
        outputs: size of the output. hidden: widths of the hidden layers.
        context: inputs more that are parameters, the same for all examples (`cavia`).
        activation: of the hidden layers.

    Returns: a `Model`, [n, *inputs] -> [n, outputs]. Parameters: `dense1`, ...,
        `head`, each with `kernel` [in, out] and `bias` [out]; `context` if there is one.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp().init(jax.random.key(0))
    >>> {name: layer["kernel"].shape for name, layer in params.items()}
    {'dense1': (1, 40), 'dense2': (40, 40), 'head': (40, 1)}
    """
    from jaxmeta.models.networks import MLP

    shape = _example(inputs)
    checks.check_sizes(outputs=outputs)
    checks.check_shapes(hidden=hidden)
    checks.check_sizes(0, context=context)
    checks.check_functions(activation=activation)
    module = MLP(tuple(hidden), outputs, context, activation)
    return _network(module, shape, "inputs", flat=True)


@remembered
def conv4(
    outputs: int | None = 5,
    *,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    widths: int | tuple[int, int, int, int] = 64,
    strided: bool = False,
    context: int = 0,
    pools: int = 4,
    grid: bool = False,
    conv: ConvMethod | None = None,
) -> Model:
    """The Conv4 of the MAML and ProtoNet papers.

    Four blocks of 3x3 convolution with bias, batch norm, relu and 2x2 max-pooling; then
    a dense head on the flattened features, or none. Batch norm uses the statistics of
    the batch at hand (support when adapting, all queries when predicting:
    "transductive"), as those papers do, and leaves masked examples out.

    Args:
        outputs: size of the head, e.g. ways; None = no head, the features themselves
            (64 for 28 x 28 inputs).
        input_shape: (height, width, channels) of an image.
        widths: channels of the blocks, one number or four: 64 is the Conv4-64 of most
            papers, (96, 192, 384, 512) the Conv4-512 of R2D2.
        strided: convolutions of stride 2 and a mean over space in place of max-pooling,
            as MAML has it for Omniglot.
        context: parameters that scale and shift the channels of the third block (FiLM,
            as CAVIA has it), through a layer `film`; 0 = none.
        pools: how many blocks, from the first, end with max-pooling.
        grid: return the feature maps [n, h', w', channels] as they are, without a head
            (`relation`, `deepemd`).
        conv: how convolutions are computed, see `layers.conv3x3`.

    Returns: a `Model`, [n, h, w, c] -> [n, outputs]. Parameters: `conv1` (`kernel`
        [3, 3, in, out], `bias`), `norm1` (`scale`, `offset`), ..., `head` (`kernel`,
        `bias`); `context` [context] and `film` if there is one.
    Raises: ValueError if max-pooling leaves nothing of so small an image, or arguments
        do not fit; when it is applied, for images that are not of `input_shape`.

    Source: Finn et al. 2017, section 5.2; Snell et al. 2017, section 3.1; both after
    Vinyals et al. 2016, arXiv 1606.04080.
    """
    if outputs is not None:
        checks.check_sizes(outputs=outputs)
    checks.check_shapes(3, input_shape=input_shape)
    if isinstance(widths, (tuple, list)):
        checks.check_shapes(4, widths=widths)
    else:
        checks.check_sizes(widths=widths)
    checks.check_flags(strided=strided, grid=grid)
    checks.check_sizes(0, context=context)
    checks.check_sizes(0, 4, pools=pools)
    if conv is not None:
        checks.check_choice("conv", conv, get_args(ConvMethod))
    if not strided and min(input_shape[:2]) < 2**pools:
        raise ValueError(
            f"input_shape: {pools} 2x2 max-pools of conv4 leave nothing of "
            f"{input_shape[0]} x {input_shape[1]} images; expected at least {2**pools} x "
            f"{2**pools}, or strided=True"
        )
    if grid and outputs is not None:
        raise ValueError(
            f"outputs: a grid has no head; expected outputs=None, got {outputs}"
        )
    from jaxmeta.models.networks import Conv4

    each = tuple(widths) if isinstance(widths, (tuple, list)) else (widths,) * 4
    module = Conv4(outputs, each, strided, conv, context, pools, grid)
    return _network(module, tuple(input_shape), masks=True)


@remembered
def resnet12(
    outputs: int | None = None,
    *,
    input_shape: tuple[int, int, int] = (84, 84, 3),
    widths: tuple[int, int, int, int] = (64, 160, 320, 640),
    drop_rate: float = 0.1,
    block_size: int = 5,
    pooled: bool = True,
) -> Model:
    """ResNet-12 with DropBlock.

    Four residual blocks of three 3x3 convolutions with batch norm (of the batch at hand)
    and leaky relu, 2x2 max-pooling after each.

    Args:
        outputs: size of the head; None = no head, the features themselves.
        input_shape: (height, width, channels) of an image.
        widths: channels of the blocks.
        drop_rate: share of a feature map that training drops, reached after 40,000
            meta-steps; DropBlock after the last two blocks, dropout after the first two.
            Only in `Model.noisy`: train with `jm.with_noise`.
        block_size: side of a dropped square.
        pooled: average over space at the end; otherwise the map is flattened, as
            MetaOptNet has it.

    Returns: a `Model`, [n, h, w, c] -> [n, outputs], or [n, features] without a head: 640
        if pooled.
    Raises: ValueError for images below 16 x 16, or a drop rate not in [0, 1).

    Source: Lee et al. 2019, section 4.1.
    """
    if outputs is not None:
        checks.check_sizes(outputs=outputs)
    checks.check_shapes(3, input_shape=input_shape)
    checks.check_shapes(4, widths=widths)
    checks.check_numbers(least=0, below=1, drop_rate=drop_rate)
    checks.check_sizes(block_size=block_size)
    checks.check_flags(pooled=pooled)
    if min(input_shape[:2]) < 16:
        raise ValueError(
            "input_shape: resnet12 expected images of at least 16 x 16, got "
            f"{tuple(input_shape[:2])}"
        )
    from jaxmeta.models.resnet import ResNet12

    module = ResNet12(tuple(widths), drop_rate, block_size, pooled, outputs)

    def noisy(params, x, mask, key, step):
        checks.check_inputs(x, tuple(input_shape))
        return module.apply({"params": params}, x, mask, key, step)

    return _network(module, tuple(input_shape), masks=True)._replace(noisy=noisy)


@remembered
def relation_module(
    input_shape: tuple[int, int, int] = (7, 7, 128),
    *,
    widths: int = 64,
    hidden: int = 8,
) -> Model:
    """The relation module of Sung et al. 2018: two convolution blocks, two dense layers.

    Args:
        input_shape: (height, width, channels) of a pair's maps, joined along channels.
        widths: channels of the blocks. hidden: size of the first dense layer.

    Returns: a `Model`, [pairs, h, w, c] -> [pairs, 1], before the sigmoid.
    """
    from jaxmeta.models.networks import RelationModule

    checks.check_shapes(3, input_shape=input_shape)
    checks.check_sizes(widths=widths, hidden=hidden)
    return _network(RelationModule(widths, hidden), tuple(input_shape), masks=True)


@remembered
def transformer(
    inputs: int | tuple[int, ...],
    outputs: int,
    *,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
) -> Model:
    """Transformer over the examples of a batch: all look at each other.

    Args:
        inputs: size of an example, or its shape (it is flattened). outputs: size of the
            output. width: of the tokens, a multiple of heads; heads, layers: how many.

    Returns: a `Model`, [n, *inputs] -> [n, outputs], equivariant to the order of the
        examples; masked ones are not looked at.
    Raises: ValueError for sizes below 1, or a width that heads does not divide.
    """
    from jaxmeta.models.attention import Transformer

    shape = _example(inputs)
    check_heads(width, heads)
    checks.check_sizes(outputs=outputs, layers=layers)
    module = Transformer(outputs, width, heads, layers)
    return _network(module, shape, "inputs", flat=True, masks=True)


@remembered
def set_encoder(
    inputs: int,
    outputs: int,
    *,
    hidden: tuple[int, ...] = (128, 128),
    after: tuple[int, ...] = (128,),
    heads: int = 0,
) -> Model:
    """Deep set: one vector for a whole set, whatever its order.

    Args:
        inputs: size of an example. outputs: size of the vector.
        hidden: layers before the mean over examples. after: hidden layers after it.
        heads: of an attention layer before the mean, by which examples look at each
            other (`anp`); 0 = none.

    Returns: a `Model`, [n, inputs] -> [outputs]; masked examples are left out.
    Raises: ValueError for heads that do not divide the last hidden width.
    """
    from jaxmeta.models.attention import SetEncoder

    checks.check_sizes(inputs=inputs, outputs=outputs)
    checks.check_shapes(hidden=hidden, after=after)
    checks.check_sizes(0, heads=heads)
    if heads:
        check_heads((inputs, *hidden)[-1], heads)
    module = SetEncoder(outputs, tuple(hidden), tuple(after), heads)
    return _network(module, (inputs,), "inputs", flat=True, masks=True)


@remembered
def cross_attention(
    inputs: int,
    values: int,
    *,
    width: int = 128,
    heads: int = 8,
    hidden: tuple[int, ...] = (128,),
) -> Model:
    """Attention from one set of inputs to another with values (`anp`).

    Args:
        inputs: size of queries and keys. values: size of the values.
        width: of the result, a multiple of heads. heads: of the attention.
        hidden: layers that queries and keys go through first, the same for both.

    Returns: a `Model` whose apply is (params, queries [n, inputs], keys [m, inputs],
        values [m, values], mask [m] or None) -> [n, width].
    Raises: ValueError for a width that heads does not divide.
    """
    from jaxmeta.models.attention import CrossAttention

    checks.check_sizes(inputs=inputs, values=values)
    checks.check_shapes(hidden=hidden)
    check_heads(width, heads)
    size_of_value = (values,)
    module = CrossAttention(width, heads, tuple(hidden))

    @jax.jit
    def init(key):
        one = jnp.zeros((1, inputs))
        return module.init(key, one, one, jnp.zeros((1, values)))["params"]

    def apply(params, queries, keys, values, mask=None):
        for x in (queries, keys):
            checks.check_inputs(x, (inputs,), "inputs")
        checks.check_inputs(values, size_of_value, "values")
        return module.apply({"params": params}, queries, keys, values, mask)

    return Model(init, apply)


class ReaderModel(NamedTuple):
    """A transformer that reads a support set once and answers any number of targets.

    init: key -> params. encode: (params, tokens [m, width], mask=None) -> states.
    read: (params, states, targets [n, width], mask=None) -> [n, outputs]; mask [m] of the
        support tokens in both.
    """

    init: Callable[..., PyTree]
    encode: Callable[..., Any]
    read: Callable[..., Any]


@remembered
def reader(
    outputs: int, *, width: int = 64, heads: int = 4, hidden: int = 128, layers: int = 6
) -> ReaderModel:
    """Transformer whose targets look at a support set, and not at each other.

    Args: outputs: size of the output; width of the tokens, a multiple of heads; hidden:
        size of the dense layers; layers: how many.
    Returns: a `ReaderModel`. Raises: ValueError for a width that heads does not divide.
    """
    from jaxmeta.models.attention import Reader

    check_heads(width, heads)
    checks.check_sizes(outputs=outputs, hidden=hidden, layers=layers)
    module = Reader(width, heads, hidden, layers, outputs)

    @jax.jit
    def init(key):
        one = jnp.zeros((1, width))
        return module.init(key, one, one)["params"]

    def encode(params, tokens, mask=None):
        return module.apply({"params": params}, tokens, mask, method="encode")

    def read(params, states, targets, mask=None):
        return module.apply({"params": params}, states, targets, mask, method="read")

    return ReaderModel(init, encode, read)


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError unless each head gets an equal part of the width."""
    checks.check_sizes(width=width, heads=heads)
    if width % heads:
        raise ValueError(
            f"width, heads: expected a width that heads divides, got {width} and {heads}"
        )


def _example(inputs: int | tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an example, given as a size or a shape."""
    if isinstance(inputs, (tuple, list)):
        checks.check_shapes(inputs=inputs)
        return tuple(inputs)
    checks.check_sizes(inputs=inputs)
    return (inputs,)


def _network(
    module: Any,
    shape: tuple[int, ...],
    argument: str = "input_shape",
    *,
    flat: bool = False,
    masks: bool = False,
) -> Model:
    """A Linen module that has only `params`, for examples of one shape.

    Args: argument, flat: as in `checks.check_inputs`; masks: whether its `__call__` takes
        (x, mask) or x.
    """
    from flax.errors import FlaxError

    from jaxmeta.models.networks import init_params

    @jax.jit  # no forward pass is run, and one program is compiled in place of many
    def init(key):
        return init_params(module, key, shape)

    def apply(params, x, mask=None):
        checks.check_inputs(x, shape, argument, flat)
        try:
            return module.apply({"params": params}, x, *((mask,) if masks else ()))
        except FlaxError as error:
            raise ValueError(
                "params: expected those of this network, as init(key) makes them, got "
                f"others: {error}"
            ) from error

    return Model(init, apply, uses_mask=masks)


MODELS: dict[str, Callable[..., Model]] = {
    "conv4": conv4,
    "mlp": mlp,
    "resnet12": resnet12,
}
