"""The inner loop: one task, one optimisation, and all that its end depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeGuard

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.tame import tamed

PyTree = Any
Objective = Callable[[PyTree, PyTree, PyTree], jax.Array]
Gradient = Callable[[PyTree, PyTree, PyTree], PyTree]
Rule = Callable[[PyTree], optax.GradientTransformation]
META_LEARNED = "meta-learned"  # of a rule whose numbers each call gives


@dataclass(frozen=True, eq=False)
class Game:
    """In place of one objective: several, each descended by its own part of w.

        w_i <- w_i + rule(dL_i/dw_i (w, context, batch)),  w = {i: w_i}

    Adversaries play such a game. Its field is the gradient of no function (the Jacobian
    is not symmetric). A reversed gradient makes one objective of two, but its second
    derivative is the field's or another by how it is written: never differentiate twice
    through one.

    players: name -> L_i, which sees the parts of all. What is called is the first one's.
    semi: whether they are L_i(w, now, context, batch) with w twice: `now` is a constant of
        the gradients that are descended (the weight of an example, what a network says),
        and not of the meta-gradient. `stop_gradient` would make it one of both.
    """

    players: Mapping[str, Callable[..., jax.Array]]
    semi: bool = False

    def __call__(self, w: PyTree, context: PyTree, batch: PyTree) -> jax.Array:
        now = (w,) if self.semi else ()
        return next(iter(self.players.values()))(w, *now, context, batch)

    def gradient(self, w: PyTree, context: PyTree, batch: PyTree) -> PyTree:
        """{i: dL_i/dw_i}."""
        given = (w, context, batch) if self.semi else (context, batch)

        def of(name, objective):
            mine = lambda part: objective({**w, name: part}, *given)
            return jax.grad(mine)(w[name])

        return {name: of(name, objective) for name, objective in self.players.items()}


@dataclass(frozen=True)
class FixedPoint:
    """In place of an objective: a map, whose fixed point w = f(w, context, batch) is sought.

        w <- w + rule(w - f(w, context, batch)),  so sgd(1) iterates f, a lower rate averages

    The Jacobian of that field, I - df/dw, need not be symmetric. What is called is half the
    squared length of the field.

    f: the map, (w, context, batch) -> a tree like w.
    """

    f: Callable[[PyTree, PyTree, PyTree], PyTree]

    def __call__(self, w: PyTree, context: PyTree, batch: PyTree) -> jax.Array:
        field = self.gradient(w, context, batch)
        return sum((jnp.sum(a**2) for a in jax.tree.leaves(field)), jnp.zeros(())) / 2

    def gradient(self, w: PyTree, context: PyTree, batch: PyTree) -> PyTree:
        """w - f(w)."""
        return jax.tree.map(jnp.subtract, w, self.f(w, context, batch))


def gradient_of(objective: Objective) -> Gradient:
    """(w, context, batch) -> what a step goes against: the gradient, or a field."""
    return objective.gradient if is_field(objective) else jax.grad(objective)


def is_field(objective: Objective) -> TypeGuard[Game | FixedPoint]:
    """Whether steps go against what is the gradient of no function."""
    return isinstance(objective, (Game, FixedPoint))


class Operands(NamedTuple):
    """Everything that the end of a descent depends on, so all that has a derivative."""

    start: PyTree  # w_0
    hyper: PyTree  # meta-parameters of the rule
    context: PyTree  # meta-learned, but not adapted
    batch: PyTree  # the data, the same at each step
    xs: PyTree = None  # arrays [steps, ...], one entry for each step
    state: PyTree = None  # the rule's, to go on from; None = the beginning


@dataclass(frozen=True)
class Descent:
    """The inner optimisation of one task, made by `descent` and called in `adapt`.

        w_0 = start,  w_{k+1} = w_k + rule(hyper)(dL/dw (w_k, context, batch))

    objective: L(w, context, batch) -> []; batch is (batch, xs[k]) if there are `xs`.
        Everything it depends on is an argument: what is closed over gets no meta-gradient.
    rule: hyper -> the optax transformation of gradients into updates; `optax.sgd` is one.
    steps: how many; 0 returns the start.
    adjoint: how to differentiate through it, see `jaxmeta.adjoints`.
    hyper: of the rule, where a call gives none.
    trajectory: whether w_1, ..., w_steps are wanted, or the last.
    goes_on: whether the rule's state after the last step is wanted, too.

    A rule whose update needs `value=` gets L, and one whose derivative is infinite where
    a gradient is zero is tamed, see `jaxmeta.tame`.
    """

    objective: Objective
    rule: Rule
    steps: int
    adjoint: "Adjoint"
    hyper: PyTree = ()
    trajectory: bool = False
    goes_on: bool = False

    def __call__(
        self,
        start: PyTree,
        context: PyTree,
        batch: PyTree,
        *,
        hyper: PyTree = None,
        xs: PyTree = None,
        trajectory: bool = False,
        state: PyTree = None,
    ) -> PyTree:
        """Adapt `start` to a batch by gradient steps, differentiably.

        Args:
            start: w_0, a pytree of floating arrays.
            context: what is meta-learned but not adapted (a pytree, may be `()`).
            batch: the support set, the same full batch at each step.
            hyper: meta-parameters of the rule (its step size, an LSTM's weights).
            xs: arrays [steps, ...]; the objective then gets (batch, xs[k]) as batch at
                step k: examples, keys or weights of that step.
            trajectory: return w_1, ..., w_steps on a leading axis in place of w_steps.
            state: of the rule, after steps before these; None = there are none.

        Returns: w_steps, a tree like `start`; with a state, (w_steps, state after them).
        """
        if self.steps == 0:
            if trajectory:
                raise ValueError("inner_steps: expected at least 1, got 0")
            return start
        for leaf in jax.tree.leaves(xs):
            if leaf.shape[0] != self.steps:
                raise ValueError(
                    f"xs: expected one entry for each of the {self.steps} steps, got an "
                    f"array of shape {leaf.shape}"
                )
        hyper = self.hyper if hyper is None else hyper
        operands = Operands(start, hyper, context, batch, xs, state)
        wanted = {"trajectory": trajectory, "goes_on": state is not None}
        return self.adjoint.solve(replace(self, **wanted), operands)

    def begin(self, operands: Operands) -> PyTree:
        """The carry before the first step: w_0 and the rule's state."""
        rule = self.rule(operands.hyper)
        checks.check_optimizer(rule, "rule")
        if operands.state is not None:
            return operands.start, operands.state
        return operands.start, rule.init(operands.start)

    def result(self, ran: tuple[PyTree, PyTree]) -> PyTree:
        """What is wanted of (carry, [w after each step])."""
        (w, state), trajectory = ran
        if self.trajectory:
            return trajectory
        return (w, state) if self.goes_on else w

    def run(
        self,
        operands: Operands,
        carry: PyTree,
        gradient: Gradient,
        loop: Callable,
        part: slice = slice(None),
    ) -> tuple[PyTree, PyTree]:
        """Steps `part` of the descent. Returns: carry, [w after each] or None.

        Args: gradient: (w, context, batch) -> dL/dw; loop: as `jax.lax.scan`.

        Keys in the batch (the noise of a network) are other keys at each step.
        """
        rule = self.rule(operands.hyper)
        update, with_value = tamed(rule.update), needs_value(rule, carry[0])
        noisy = has_keys(operands.batch)

        def step(carry, now):
            (w, state), (x, k) = carry, now
            batch = at_step(operands.batch, k) if noisy else operands.batch
            batch = batch if operands.xs is None else (batch, x)
            g, more = gradient(w, operands.context, batch), {}
            if with_value:
                more = {"value": self.objective(w, operands.context, batch)}
            updates, state = update(g, state, w, **more)
            w = optax.apply_updates(w, updates)
            return (w, state), w if self.trajectory else None

        steps = jnp.arange(self.steps) if noisy else None
        now = jax.tree.map(lambda a: a[part], (operands.xs, steps))
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

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """Run it, with this adjoint's derivative: w_steps, or the trajectory."""
        ...


def descent(
    learner: str,
    objective: Objective,
    *,
    steps: int,
    adjoint: Adjoint,
    rule: Rule = optax.sgd,
    inner_lr: Any = META_LEARNED,
    learns: tuple[str, ...] = ("start",),
    least: int = 0,
) -> Descent:
    """A `Descent`, whose parts make sense together.

    Args:
        learner: its name, for sentences. objective, steps, adjoint, rule: as in `Descent`.
        inner_lr: what the rule is made from: a number (an argument, so that it can be
            vmapped over), or a schedule of the inner step; `META_LEARNED` = calls give it.
        learns: what needs a gradient through the descent: "start", "rule", "context".
        least: the least number of steps.

    Raises: ValueError for a negative `inner_lr`, too few steps, or an adjoint that gives
        no gradient for all that is learned, or has none for the objective.
    """
    checks.check_sizes(least, inner_steps=steps)
    checks.check_functions(objective=objective, rule=rule)
    require(adjoint, learner, *learns)
    if check := getattr(adjoint, "check", None):  # of an adjoint that is not for all
        check(objective)
    if inner_lr is META_LEARNED:
        return Descent(objective, rule, steps, adjoint)
    if callable(inner_lr):
        check_schedule(inner_lr)
        return Descent(objective, lambda _: rule(inner_lr), steps, adjoint)
    checks.check_numbers(least=0, inner_lr=inner_lr)
    return Descent(objective, rule, steps, adjoint, inner_lr)


def require(adjoint: Adjoint, learner: str, *learned: str) -> None:
    """Raise ValueError unless the adjoint gives a gradient for all that is learned.

    Args: adjoint; the learner's name; learned: "start", "rule" or "context".
    """
    words = {
        "start": "the initialisation",
        "rule": "the inner rule's parameters (step sizes and the like)",
        "context": "what the inner objective depends on",
    }
    if isinstance(adjoint, type) or not callable(getattr(adjoint, "solve", None)):
        raise ValueError(
            "adjoint: expected one like jm.MixedMode() or jm.Reverse(), made by a call, "
            f"got {checks.said(adjoint)}"
        )
    for what in learned:
        if what not in adjoint.gives:
            raise ValueError(
                f"adjoint: {learner} learns {words[what]}, and {adjoint} gives no "
                "gradient for it; expected MixedMode(), Reverse(), Truncated(k) or "
                f"Forward(){getattr(adjoint, 'hint', '')}"
            )


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
