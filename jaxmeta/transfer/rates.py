"""How fast and how far parameters move: optax transformations for fine-tuning."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.types import PyTree


class Start(NamedTuple):
    """State of `l2_sp`."""

    w_0: PyTree  # like the parameters


def l2_sp(weight: float) -> optax.GradientTransformation:
    """A pull towards where training starts, to be chained before an optimiser.

    Li, Grandvalet, Davoine. Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks. ICML 2018, arXiv 1802.01483. The penalty
    L2-SP of section 3, alpha / 2 |w - w_0|^2; its gradient is added:

        g + alpha (w - w_0),   w_0 what `init` is given

    Args: weight: alpha >= 0.
    Returns: an optax transformation. Raises: ValueError for a negative weight.

    >>> import optax
    >>> rule = optax.chain(l2_sp(0.5), optax.sgd(0.1))
    >>> state = rule.init(jnp.array(1.0))
    >>> float(rule.update(jnp.array(0.0), state, jnp.array(3.0))[0])  # -.1 x .5 (3 - 1)
    -0.10000000149011612
    """
    checks.check_numbers(least=0, weight=weight)

    def init(params):
        return Start(jax.tree.map(jnp.array, params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError(
                "l2_sp: expected update(gradients, state, params), got none"
            )
        pull = lambda g, w, w_0: g + weight * (w - w_0)
        return jax.tree.map(pull, updates, params, state.w_0), state

    return optax.GradientTransformation(init, update)


def by_depth(
    optimizer: optax.GradientTransformation,
    decay: float,
    layers: tuple[str | tuple[str, ...], ...],
) -> optax.GradientTransformation:
    """An optimiser whose step size falls layer by layer, from the head down.

    Howard and Ruder. Universal Language Model Fine-tuning for Text Classification. ACL
    2018, arXiv 1801.06146. Section 3.2, eta_{l-1} = eta_l / 2.6: of L layers, counted
    from 0 at the inputs, layer l moves with decay^(L - 1 - l) times the optimiser's step.

    Args:
        optimizer: what makes the steps.
        decay: 0 < decay <= 1; theirs is 1 / 2.6.
        layers: their names, from the inputs to the head; names that share a depth in a
            tuple: (("conv1", "norm1"), ("conv2", "norm2"), "head"). The order of a dict
            does not tell it: a compiled `init` sorts the names.

    Returns: an optax transformation, for parameters that are a dict of layers, or for
        what moves of them.
    Raises: ValueError for a decay out of range, a name that is there twice, and in `init`
        for a layer that has no depth.

    >>> import optax
    >>> rule = by_depth(optax.sgd(1.0), 0.5, ("body", "head"))
    >>> w = {"body": jnp.ones(()), "head": jnp.ones(())}
    >>> updates, _ = rule.update(w, rule.init(w), w)
    >>> {name: float(step) for name, step in updates.items()}
    {'body': -0.5, 'head': -1.0}
    """
    checks.check_optimizer(optimizer)
    checks.check_numbers(above=0, most=1, decay=decay)
    depths = _depths(layers)
    rates = {name: decay ** (max(depths.values()) - d) for name, d in depths.items()}

    def init(params):
        _check_depths(params, rates)
        return optimizer.init(params)

    def update(updates: Any, state, params=None, **extra):
        updates, state = optimizer.update(updates, state, params, **extra)
        scaled = {
            name: jax.tree.map(lambda u, r=rates[name]: r * u, layer)
            for name, layer in updates.items()
        }
        return scaled, state

    return optax.GradientTransformationExtraArgs(init, update)


def _depths(layers) -> dict[str, int]:
    """name -> depth. Raises: ValueError for no layers, or one that is there twice."""
    groups = [(g,) if isinstance(g, str) else tuple(g) for g in layers]
    names = [name for group in groups for name in group]
    if isinstance(layers, str) or not names or len({*names}) < len(names):
        raise ValueError(
            "layers: expected the names of the layers from the inputs to the head, each "
            f"once, got {checks.said(layers)}"
        )
    return {name: depth for depth, group in enumerate(groups) for name in group}


def _check_depths(params, rates) -> None:
    names = list(params) if isinstance(params, Mapping) else None
    unknown = [n for n in names or () if n not in rates]
    if names is None or unknown:
        raise ValueError(
            "layers: expected a depth for each layer of a dict of parameters, got none "
            f"for {', '.join(unknown) or checks.said(type(params))}; known are "
            f"{', '.join(rates)}"
        )
