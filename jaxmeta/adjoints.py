"""How to differentiate through the inner loop.

An adjoint is two choices: how the inner gradient is differentiated (`gradient`), and
how the loop over inner steps is run and stored (`loop`). All adjoints give the same
adapted parameters; they differ in the meta-gradient's exactness, memory and time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax

PyTree = Any
Objective = Callable[[PyTree, PyTree, PyTree], jax.Array]
Gradient = Callable[[PyTree, PyTree, PyTree], PyTree]


class Adjoint(Protocol):
    """What `jaxmeta.inner.descend` asks of an adjoint."""

    def gradient(self, objective: Objective, /) -> Gradient:
        """(w, context, batch) -> dL/dw, with this adjoint's derivative."""
        ...

    def loop(self, step: Callable, carry: PyTree, steps: int, /) -> PyTree:
        """Run `carry = step(carry)` `steps` times."""
        ...


@dataclass(frozen=True)
class MixedMode:
    """The exact meta-gradient, each Hessian product forward-over-reverse.

    The backward pass needs, for a cotangent v of the inner gradient g(w, c) = dL/dw,
    the products v dg/dw = Hv and v dg/dc. Both are the tangent of (dL/dw, dL/dc) along
    (v, 0), since second derivatives commute: one `jvp` of the gradient, in place of a
    reverse pass through the reverse pass and all that it stores.
    Only reverse-mode differentiation passes through it; use `Reverse` under `jax.jvp`.

    Source: MixFlow-MG, Kemaev et al. 2025, arXiv 2505.00793, section 3.
    """

    def gradient(self, objective: Objective, /) -> Gradient:
        """The inner gradient with a forward-over-reverse derivative."""

        @jax.custom_vjp
        def gradient(w, context, batch):
            return jax.grad(objective)(w, context, batch)

        def forward(w, context, batch):
            return gradient(w, context, batch), (w, context, batch)

        def backward(residuals, v):
            leaves, tree = jax.tree.flatten(residuals)
            smooth = [_is_smooth(leaf) for leaf in leaves]

            def value(floats):
                rest = iter(floats)
                full = [
                    next(rest) if s else leaf
                    for s, leaf in zip(smooth, leaves, strict=True)
                ]
                return objective(*jax.tree.unflatten(tree, full))

            floats = [leaf for s, leaf in zip(smooth, leaves, strict=True) if s]
            # w is the first of the three residuals, so v lies along the first leaves.
            along = jax.tree.leaves(v)
            along += [jax.numpy.zeros_like(f) for f in floats[len(along) :]]
            _, products = jax.jvp(jax.grad(value), (floats,), (along,))
            rest = iter(products)
            return jax.tree.unflatten(tree, [next(rest) if s else None for s in smooth])

        gradient.defvjp(forward, backward)
        return gradient

    def loop(self, step: Callable, carry: PyTree, steps: int, /) -> PyTree:
        """One scan that stores the carry of each step and nothing else."""
        return _scan(step, carry, steps, remat=True, unroll=1)


@dataclass(frozen=True)
class Reverse:
    """The exact meta-gradient, reverse-over-reverse through the loop: the reference.

    remat: store only the carry of each step and compute the step again when going
        back; False stores all intermediate values of all steps.
    unroll: steps a loop iteration, as in `jax.lax.scan`.
    """

    remat: bool = True
    unroll: int = 1

    def __post_init__(self):
        if self.unroll < 1:
            raise ValueError(f"unroll: expected at least 1, got {self.unroll}")

    def gradient(self, objective: Objective, /) -> Gradient:
        """The plain gradient; JAX differentiates it."""
        return jax.grad(objective)

    def loop(self, step: Callable, carry: PyTree, steps: int, /) -> PyTree:
        """One scan, with one checkpoint a step if `remat`."""
        return _scan(step, carry, steps, remat=self.remat, unroll=self.unroll)


@dataclass(frozen=True)
class FirstOrder:
    """Inner gradients taken as constants: half the time, and biased.

    Source: MAML, Finn et al. 2017, section 5.2 (first-order approximation).
    """

    def gradient(self, objective: Objective, /) -> Gradient:
        """The gradient with derivative zero."""

        def gradient(w, context, batch):
            return jax.lax.stop_gradient(jax.grad(objective)(w, context, batch))

        return gradient

    def loop(self, step: Callable, carry: PyTree, steps: int, /) -> PyTree:
        """One scan; there is nothing worth computing again."""
        return _scan(step, carry, steps, remat=False, unroll=1)


def _scan(step, carry, steps, remat, unroll):
    if steps == 1:  # no loop: XLA then shares the forward pass with the backward one
        return step(carry)
    if (
        remat
    ):  # inside scan nothing can be merged across passes, so no barrier is needed
        step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(
        lambda c, _: (step(c), None), carry, length=steps, unroll=unroll
    )[0]


def _is_smooth(leaf) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)
