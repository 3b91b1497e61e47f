"""The inner loop: one task, one optimisation, and all that its end depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.tame import tamed

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

    A rule whose update needs `value=` gets L, and one whose derivative is infinite where
    a gradient is zero is tamed, see `jaxmeta.tame`.
    """

    objective: Objective
    rule: Rule
    steps: int
    trajectory: bool = False

    def begin(self, inputs: Inputs) -> PyTree:
        """The carry before the first step: w_0 and the rule's state."""
        rule = self.rule(inputs.hyper)
        checks.check_optimizer(rule, "rule")
        return inputs.start, rule.init(inputs.start)

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

        Keys in the batch (the noise of a network) are other keys at each step.
        """
        rule = self.rule(inputs.hyper)
        update, with_value = tamed(rule.update), needs_value(rule, carry[0])
        noisy = has_keys(inputs.batch)

        def step(carry, now):
            (w, state), (each, k) = carry, now
            batch = at_step(inputs.batch, k) if noisy else inputs.batch
            batch = batch if inputs.each is None else (batch, each)
            g, more = gradient(w, inputs.context, batch), {}
            if with_value:
                more = {"value": self.objective(w, inputs.context, batch)}
            updates, state = update(g, state, w, **more)
            w = optax.apply_updates(w, updates)
            return (w, state), w if self.trajectory else None

        steps = jnp.arange(self.steps) if noisy else None
        now = jax.tree.map(lambda a: a[part], (inputs.each, steps))
        return loop(step, carry, now, len(range(self.steps)[part]))


def needs_value(rule: optax.GradientTransformation, w: PyTree) -> bool:
    """Whether the rule can't be asked for an update without `value=` (polyak_sgd)."""
    try:
        jax.eval_shape(lambda w: rule.update(w, rule.init(w), w), w)
    except TypeError as error:
        if "value" in str(error):
            return True
        raise
    return False


def has_keys(tree: PyTree) -> bool:
    """Whether there are random keys among the leaves."""
    return any(map(_is_key, jax.tree.leaves(tree)))


def at_step(tree: PyTree, k: jax.Array | int) -> PyTree:
    """A tree whose random keys [] have k folded in; all else as it is."""
    fold = lambda key: jax.random.fold_in(jax.random.clone(key), k)
    return jax.tree.map(lambda a: fold(a) if _is_key(a) else a, tree)


def _is_key(leaf) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", int), jax.dtypes.prng_key)


class Adjoint(Protocol):
    """How to differentiate through a descent; the kinds are in `jaxmeta.adjoints`."""

    gives: ClassVar[frozenset[str]]  # a gradient for "start", "rule", "context"
    exact: ClassVar[bool]  # whether that is the slope of what it runs

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
    descent = Descent(objective, rule, steps, trajectory)
    return adjoint.solve(descent, Inputs(params, hyper, context, batch, each))


def fixed_rule(
    rule: Callable[..., optax.GradientTransformation],
    inner_lr: float | optax.Schedule,
) -> tuple[Rule, PyTree]:
    """An inner rule and its hyper-parameters, as `inner.descend` takes them.

    A schedule is structure; a number is an argument, so that it can be vmapped over.
    """
    checks.check_functions(rule=rule)
    if callable(inner_lr):
        return lambda _: rule(inner_lr), ()
    return rule, inner_lr


def check_descent(inner_lr, inner_steps, least: int = 0) -> None:
    """Raise ValueError unless the arguments of an inner loop make sense.

    inner_lr: a number, or a schedule (a function of the inner step).
    """
    if callable(inner_lr):
        check_schedule(inner_lr)
    else:
        checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(least, inner_steps=inner_steps)


def check_schedule(inner_lr: Callable) -> None:
    """Raise ValueError unless it makes a number of the inner step."""
    try:
        rate = jax.eval_shape(inner_lr, jax.ShapeDtypeStruct((), jnp.int32))
    except TypeError as error:
        raise ValueError(
            "inner_lr: expected a number, or a schedule, step -> number, got "
            f"{checks.said(inner_lr)}, which gives none ({error})"
        ) from error
    if getattr(rate, "shape", None) != ():
        raise ValueError(
            "inner_lr: expected a schedule that gives one number, got one that gives "
            f"{checks.said(rate)}"
        )
