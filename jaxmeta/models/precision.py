"""A network computed in half precision, its parameters kept in full (mixed precision).

Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev, Venkatesh,
Wu. Mixed Precision Training. ICLR 2018, arXiv 1710.03740, section 3.1: master weights.
bfloat16 has float32's exponents, so there is no loss to scale (section 3.2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.types import Model, PyTree

NAMES = "bfloat16", "float16", "float32"


@remembered
def computed_in(model: Model, dtype: str = "bfloat16") -> Model:
    """A model whose forward pass, and so its derivatives, is computed in another type.

    Parameters and inputs are rounded on the way in, and outputs are of the parameters' own
    type again. So are the inner loop's updates, losses, what solvers solve, the
    meta-gradient and the outer optimiser; sums of jaxmeta's batch and layer norm are of
    float32 at least.

    A Flax network keeps frozen state (running statistics) as it is, and computes with it in
    the wider of the two types; such a one has a `dtype` of its own.

    Args: model; dtype: "bfloat16", "float16" (which overflows beyond 65,504) or "float32".
    Returns: a `Model` with the same parameters.
    Raises: ValueError for another type.

    >>> import jax, jaxmeta as jm
    >>> model = jm.models.computed_in(jm.models.mlp(2, 3))
    >>> params = model.init(jax.random.key(0))
    >>> params["head"]["kernel"].dtype, model.apply(params, jax.numpy.ones((4, 2))).dtype
    (dtype('float32'), dtype('float32'))
    """
    checks.check_models(model=model)
    checks.check_choice("dtype", dtype, NAMES)
    narrow = jnp.dtype(dtype)
    noisy = model.noisy and _Narrow(model.noisy, narrow)
    return model._replace(apply=_Narrow(model.apply, narrow), noisy=noisy)


@dataclass(frozen=True)
class _Narrow:
    """A forward pass in another type; equal for equal ones."""

    run: Callable[..., Any]
    dtype: Any

    def __call__(self, params: PyTree, *inputs: Any) -> Any:
        own = jnp.result_type(float, *filter(_is_floating, jax.tree.leaves(params)))
        outputs = self.run(*_cast((params, *inputs), self.dtype))
        return _cast(outputs, own)


def _cast(tree: PyTree, dtype) -> PyTree:
    """Floating arrays of a tree in another type; all else as it is."""
    return jax.tree.map(lambda a: a.astype(dtype) if _is_floating(a) else a, tree)


def _is_floating(a: Any) -> bool:
    return hasattr(a, "astype") and jnp.issubdtype(a.dtype, jnp.floating)
