"""The inner loop: one task, one optimisation, and all that its end depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import optax

PyTree = Any
Objective = Callable[[PyTree, PyTree, PyTree], jax.Array]
Gradient = Callable[[PyTree, PyTree, PyTree], PyTree]
Rule = Callable[[PyTree], optax.GradientTransformation]


class Inputs(NamedTuple):
    """Everything that the end of a descent depends on, so all that has a derivative."""

    start: PyTree  # w_0
    hyper: PyTree  # meta-parameters of the rule
    context: PyTree  # meta-learned, but not adapted
    batch: PyTree  # the data, the same at each step
    each: PyTree = None  # arrays [steps, ...], one entry for each step


@dataclass(frozen=True)
class Descent:
    """An inner optimisation, before anything is said about its derivatives.

    objective: L(w, context, batch) -> []; batch is (batch, each[k]) if there is `each`.
    rule: hyper -> the optax transformation of gradients into updates.
    steps: how many. trajectory: whether w_1, ..., w_steps are wanted, or the last.
    with_value: whether the rule's update takes `value=L`, as some of optax do.
    """

    objective: Objective
    rule: Rule
    steps: int
    trajectory: bool = False
    with_value: bool = False

    def begin(self, inputs: Inputs) -> PyTree:
        """The carry before the first step: w_0 and the rule's state."""
        return inputs.start, self.rule(inputs.hyper).init(inputs.start)

    def run(
        self,
        inputs: Inputs,
        carry: PyTree,
        gradient: Gradient,
        loop: Callable,
        part: slice = slice(None),
    ) -> tuple[PyTree, PyTree]:
        """Steps `part` of the descent. Returns: carry, [w after each] or None.

        Args: gradient: (w, context, batch) -> dL/dw; loop: as `jax.lax.scan`.
        """
        rule = self.rule(inputs.hyper)

        def step(carry, each):
            w, state = carry
            batch = inputs.batch if inputs.each is None else (inputs.batch, each)
            g, more = gradient(w, inputs.context, batch), {}
            if self.with_value:
                more = {"value": self.objective(w, inputs.context, batch)}
            updates, state = rule.update(g, state, w, **more)
            w = optax.apply_updates(w, updates)
            return (w, state), w if self.trajectory else None

        each = jax.tree.map(lambda a: a[part], inputs.each)
        return loop(step, carry, each, len(range(self.steps)[part]))


class Adjoint(Protocol):
    """How to differentiate through a descent; the kinds are in `jaxmeta.adjoints`."""

    gives: ClassVar[frozenset[str]]  # a gradient for "start", "rule", "context"

    def solve(self, descent: Descent, inputs: Inputs, /) -> PyTree:
        """Run it, with this adjoint's derivative: w_steps, or the trajectory."""
        ...


def descend(
    objective: Objective,
    rule: Rule,
    steps: int,
    adjoint: Adjoint,
    params: PyTree,
    context: PyTree,
    batch: PyTree,
    *,
    hyper: PyTree = (),
    each: PyTree = None,
    trajectory: bool = False,
    with_value: bool = False,
) -> PyTree:
    """Adapt `params` to a batch by gradient steps, differentiably.

        w_0 = params,  w_{k+1} = w_k + rule(hyper)(dL/dw (w_k, context, batch))

    Args:
        objective: L(w, context, batch) -> [], what each step descends. Everything it
            depends on is an argument: what is closed over gets no meta-gradient.
        rule: hyper -> what turns gradients into updates; `optax.sgd` is one.
        steps: how many; 0 returns `params`.
        adjoint: how to differentiate through it, see `jaxmeta.adjoints`.
        params: w_0, a pytree of floating arrays.
        context: what is meta-learned but not adapted (a pytree, may be `()`).
        batch: the support set, the same full batch at each step.
        hyper: meta-parameters of the rule (its step size, an LSTM's weights).
        each: arrays [steps, ...]; the objective then gets (batch, each[k]) as batch at
            step k: examples, keys or weights of that step.
        trajectory: return w_1, ..., w_steps on a leading axis in place of w_steps.
        with_value: hand the rule L as well, `update(..., value=L)`.

    Returns: w_steps, a tree like `params`.
    """
    if steps == 0:
        if trajectory:
            raise ValueError("inner_steps: expected at least 1, got 0")
        return params
    for leaf in jax.tree.leaves(each):
        if leaf.shape[0] != steps:
            raise ValueError(
                f"each: expected one entry for each of the {steps} steps, got an array of "
                f"shape {leaf.shape}"
            )
    descent = Descent(objective, rule, steps, trajectory, with_value)
    return adjoint.solve(descent, Inputs(params, hyper, context, batch, each))
