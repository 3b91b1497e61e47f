"""Conv4, the four blocks of convolution of the few-shot papers.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra. Matching Networks for One Shot
Learning. NIPS 2016, arXiv 1606.04080. As MAML (Finn et al. 2017, arXiv 1703.03400) and
prototypical networks (Snell et al. 2017, arXiv 1703.05175) have it; FiLM: Perez et al.
2018, arXiv 1709.07871.
"""

from itertools import pairwise
from typing import get_args

import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.defaults import ConvMethod
from jaxmeta.models import layers, parameters
from jaxmeta.models.parameters import Parameter
from jaxmeta.types import Model


def _film(params, x, phi):
    """Scale and shift of channels by context parameters phi; none while phi is 0.

    x: [..., channels]. phi: [context].
    """
    scale, shift = jnp.split(layers.dense(params["layer"], phi[None]), 2, axis=1)
    shape = (*(1,) * (x.ndim - 1), x.shape[-1])
    return x * (1 + jnp.reshape(scale, shape)) + jnp.reshape(shift, shape)


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
        each = parameters.whole(widths)
    else:
        checks.check_sizes(widths=widths)
        each = (int(widths),) * 4
    checks.check_flags(strided=strided, grid=grid)
    checks.check_sizes(0, context=context)
    checks.check_sizes(0, 4, pools=pools)
    if conv is not None:
        checks.check_choice("conv", conv, get_args(ConvMethod))
    shape = height, width, channels = parameters.whole(input_shape)
    pools = int(pools)
    if not strided and min(height, width) < 2**pools:
        raise ValueError(
            f"input_shape: {pools} 2x2 max-pools of conv4 leave nothing of {height} x "
            f"{width} images; expected at least {2**pools} x {2**pools}, or strided=True"
        )
    if grid and outputs is not None:
        raise ValueError(
            f"outputs: a grid has no head; expected outputs=None, got {outputs}"
        )
    description = {}
    for i, (before, after) in enumerate(pairwise((channels, *each)), start=1):
        description[f"conv{i}"] = parameters.conv(before, after)
        description[f"norm{i}"] = parameters.batch_norm(after)
    if context:
        description["context"] = Parameter((context,))
        description["film"] = {"layer": parameters.dense(context, 2 * each[2])}
    if outputs is not None:
        cells = 1 if strided else (height // 2**pools) * (width // 2**pools)
        description["head"] = parameters.dense(cells * each[3], outputs)

    def forward(params, x, mask):
        x = jnp.transpose(x, (1, 2, 0, 3))  # see `layers`
        for i in (1, 2, 3, 4):
            x = layers.conv_block(
                x,
                params[f"conv{i}"]["kernel"],
                params[f"norm{i}"]["scale"],
                params[f"norm{i}"]["offset"],
                mask,
                stride=2 if strided else 1,
                pool=not strided and i <= pools,
                method=conv,
            )
            if context and i == 3:
                x = _film(params["film"], x, params["context"])
        if grid:
            return jnp.transpose(x, (2, 0, 1, 3))
        x = jnp.mean(x, axis=(0, 1)) if strided else layers.flatten(x)
        return x if outputs is None else layers.dense(params["head"], x)

    return parameters.network(description, forward, shape, masks=True)
