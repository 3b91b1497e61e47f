"""How to differentiate through the inner loop.

All adjoints run the same descent and give the same adapted parameters; they differ in
the meta-gradient's exactness, memory and time, and in what they have a gradient for:
"start" (a learned initialisation), "rule" (learned step sizes and other parameters of
the rule), "context" (what the objective depends on besides, e.g. a fixed body).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name

from jaxmeta import checks
from jaxmeta import types as jaxmeta_types
from jaxmeta.inner import Adjoint as Adjoint
from jaxmeta.inner import (
    Descent,
    FixedPoint,
    Game,
    Gradient,
    Objective,
    Operands,
    gradient_of,
    has_keys,
    is_field,
)
from jaxmeta.solvers import linear

PyTree = Any
EVERYTHING = frozenset({"start", "rule", "context"})
INNER_GRADIENT = "jaxmeta_inner_gradient"  # its name for checkpoint policies


@dataclass(frozen=True)
class MixedMode:
    """The exact meta-gradient, each Hessian product forward-over-reverse.

    The backward pass needs, for a cotangent v of the inner gradient g(w, c) = dL/dw,
    the products v dg/dw = Hv and v dg/dc. Both are the tangent of (dL/dw, dL/dc) along
    (v, 0), since second derivatives commute: one `jvp` of the gradient, in place of a
    reverse pass through the reverse pass and all that it stores.
    Only reverse-mode differentiation passes through it; use `Reverse` under `jax.jvp`.
    A network or loss with a custom derivative of the user's own (gradient clipping or
    reversal, straight-through rounding) may have no second derivatives that commute: where
    one is found in the objective's program, this is `Reverse("step")`.

    save_gradients: also store the inner gradient of each step, as large as the adapted
        parameters, in place of computing it again (section 3.2 of the paper).

    Source: MixFlow-MG, Kemaev et al. 2025, arXiv 2505.00793, section 3.
    """

    save_gradients: bool = False
    exact: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = EVERYTHING

    def __post_init__(self):
        checks.check_flags(save_gradients=self.save_gradients)

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """One scan that stores the carry of each step and little else."""
        policy = None
        if self.save_gradients:
            policy = jax.checkpoint_policies.save_only_these_names(INNER_GRADIENT)
        loop = partial(_loop, block=1, policy=policy)
        gradient = _mixed_gradient(descent.objective)
        return _run(descent, operands, gradient, loop)


@dataclass(frozen=True)
class Reverse:
    """The exact meta-gradient, reverse-over-reverse through the loop: the reference.

    remat: what is stored of the loop. "none" (0): all intermediate values of all steps;
        "step" (1): the carry of each step, the rest is computed again; n: the carry of
        every n-th step; "sqrt": that with n = sqrt(steps).
    policy: what else to store, from `jax.checkpoint_policies`.
    unroll: steps a loop iteration, as in `jax.lax.scan`.

    Raises: ValueError for another `remat`, or an unroll below 1.
    """

    remat: Literal["none", "step", "sqrt"] | int = "step"
    policy: Callable[..., Any] | None = None
    unroll: int = 1
    exact: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = EVERYTHING

    def __post_init__(self):
        if isinstance(self.remat, str):
            known = self.remat in ("none", "step", "sqrt")
        else:
            known = checks.is_whole(self.remat) and self.remat >= 0
        if not known:
            raise ValueError(
                "remat: expected 'none', 'step', 'sqrt' or a number of steps >= 0, got "
                f"{checks.said(self.remat)}"
            )
        if self.policy is not None:
            checks.check_functions(policy=self.policy)
        checks.check_sizes(unroll=self.unroll)

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """A scan, or a scan of scans, under plain automatic differentiation."""
        named = {"none": 0, "step": 1, "sqrt": max(1, round(descent.steps**0.5))}
        block = named[self.remat] if isinstance(self.remat, str) else self.remat
        loop = partial(_loop, block=block, policy=self.policy, unroll=self.unroll)
        gradient = gradient_of(descent.objective)
        return _run(descent, operands, gradient, loop)


@dataclass(frozen=True)
class FirstOrder:
    """Inner gradients taken as constants: half the time, and biased.

    Source: MAML, Finn et al. 2017, section 5.2 (first-order approximation).
    """

    exact: ClassVar[bool] = False
    gives: ClassVar[frozenset[str]] = frozenset({"start"})
    hint: ClassVar[str] = ", or for FirstOrder() a learner with a fixed rule: maml"

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """One scan; there is nothing worth computing again."""

        def gradient(w, context, batch):
            return jax.lax.stop_gradient(
                gradient_of(descent.objective)(w, context, batch)
            )

        loop = partial(_loop, block=0)
        return _run(descent, operands, gradient, loop)


@dataclass(frozen=True)
class Truncated:
    """Exact through the last k steps; the steps before are a constant displacement.

    With w_m = w_0 + constant for m = steps - k, the gradient of the initialisation is
    the exact one of w_m, and rule and context get what the last k steps give (K-RMD).
    Where the whole trajectory is used (`learned_optimizer`), that holds for each window
    of k steps, as in truncated backpropagation through time.

    k: steps differentiated through, exactly (as `MixedMode`); >= steps is exact.

    Raises: ValueError for k below 1 (`FirstOrder` is the method without any).
    Source: Shaban et al. 2019, Truncated Back-propagation for Bilevel Optimization,
    arXiv 1810.10667, section 3.
    """

    k: int
    exact: ClassVar[bool] = False
    gives: ClassVar[frozenset[str]] = EVERYTHING

    def __post_init__(self):
        checks.check_sizes(k=self.k)

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """Windows of k steps, the last ending with the last step."""
        exact = _mixed_gradient(descent.objective)
        first = descent.steps % self.k or self.k
        ends = [0, *range(first, descent.steps + 1, self.k)]
        carry, path = descent.begin(operands), []
        if not descent.trajectory and len(ends) > 2:  # only the last window counts
            ends, now = [0, *ends[-2:]], jax.lax.stop_gradient(operands)
        else:
            now = operands
        for begin, end in itertools.pairwise(ends):
            if begin:
                carry, now = _displaced(operands.start, carry), operands
            carry, out = descent.run(
                now, carry, exact, partial(_loop, block=1), slice(begin, end)
            )
            path.append(out)
        path = jax.tree.map(lambda *parts: jnp.concatenate(parts), *path)
        return descent.result((carry, path))


@dataclass(frozen=True)
class Forward:
    """The exact meta-gradient in forward mode, carried along with the descent.

    Memory does not grow with the steps; time and memory grow with the number of values
    that a derivative is asked for, as one tangent each: for a few scalars (a step size,
    a regulariser) and very long loops. Operands without a derivative cost nothing.

    Source: Franceschi et al. 2017, Forward and Reverse Gradient-based Hyperparameter
    Optimization, arXiv 1703.01785, section 3.2.
    """

    exact: ClassVar[bool] = True
    gives: ClassVar[frozenset[str]] = EVERYTHING

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """The descent, with its Jacobian as the residual of the backward pass."""

        def run(operands):
            gradient = gradient_of(descent.objective)
            return _run(descent, operands, gradient, _loop)

        solve = jax.custom_vjp(run)

        def forward(primals):
            operands = jax.tree.map(lambda p: p.value, primals)
            asked = [p.perturbed for p in jax.tree.leaves(primals)]
            only, given = _restrict(lambda i: _smooth_leaves(run(i)), operands, asked)
            rows = zip(*jax.jacfwd(only)(given), strict=True)  # one list an input
            return run(operands), ([next(rows) if a else None for a in asked], operands)

        def backward(residuals, v):
            jacobian, operands = residuals
            v = _smooth_leaves(v, is_leaf=_is_zero)
            v = [_instantiate(leaf) for leaf in v]
            products = [
                row
                and sum(
                    jnp.tensordot(a, j, a.ndim) for a, j in zip(v, row, strict=True)
                )
                for row in jacobian
            ]
            return (jax.tree.unflatten(jax.tree.structure(operands), products),)

        solve.defvjp(forward, backward, symbolic_zeros=True)
        return solve(operands)


@dataclass(frozen=True)
class Implicit:
    """The gradient of the solution, by the implicit function theorem.

    At w* with g(w*, c) = dL/dw (w*, c) = 0, whatever path led there,

        dw*/dc = -(J + damping I)^-1 dg/dc,  J = dg/dw at w*, the Hessian of L

    so memory and time of the backward pass do not depend on the steps. It is as exact as
    w* is a solution and as the linear system is solved. The initialisation and the rule
    get no gradient: what is learned must be in the context, e.g. the centre of a
    proximal term (`imaml`). Of a `FixedPoint`, g = w - f(w, c).

    solver: of the linear system. "cg": conjugate gradients, for a positive definite
        Hessian, so for no fixed point; "gmres", "bicgstab": for any J; "normal_cg": "cg"
        with J J', for any J, with the square of its condition; "neumann": the series
        sum_i scale (I - scale J)^i, converging if all |1 - scale eigenvalue| < 1; of a
        fixed point with scale 1, the map's own iteration; "identity": J taken as the unit
        matrix; "dense": the matrix itself, for small problems and tests.
    iterations: of all but identity and dense; of gmres, vectors that it keeps. damping:
        added to J. scale: of neumann.

    Raises: ValueError for an unknown solver, iterations below 1, a negative damping or a
        scale that is not positive; for an objective with custom derivatives of the user's
        own, which need not belong to anything that has a minimum; for cg and a fixed point.
    Source: Rajeswaran et al. 2019, iMAML, arXiv 1909.04630, equation 7; Lorraine et al.
    2020, arXiv 1911.02590 (neumann); Luketina et al. 2016, arXiv 1511.06727 (identity);
    Bai et al. 2019, Deep Equilibrium Models, arXiv 1909.01377, theorem 1 (fixed points).
    """

    solver: linear.Solver = "cg"
    iterations: int = 5
    damping: float = 0.0
    scale: float = 0.1
    exact: ClassVar[bool] = False
    gives: ClassVar[frozenset[str]] = frozenset({"context"})
    hint: ClassVar[str] = ", or for Implicit() a learner with a proximal term: imaml"

    def __post_init__(self):
        checks.check_choice("solver", self.solver, get_args(linear.Solver))
        checks.check_sizes(iterations=self.iterations)
        checks.check_numbers(least=0, damping=self.damping)
        checks.check_positive(scale=self.scale)

    def solve(self, descent: Descent, operands: Operands, /) -> PyTree:
        """The descent, and a linear solve in place of its backward pass."""
        if descent.trajectory or operands.xs is not None:
            raise ValueError(
                "Implicit() differentiates the solution of one objective: no trajectory "
                "and no data of single steps; expected MixedMode() or Reverse() here"
            )
        if has_keys(operands.batch):
            raise ValueError(
                "Implicit() differentiates the solution of one objective, and the "
                "network's noise makes another of each step; expected MixedMode() or "
                "Reverse() here, or training without with_noise"
            )
        self.check(descent.objective)
        found = custom_derivatives(
            descent.objective, operands.start, operands.context, operands.batch
        )
        if found:
            raise ValueError(
                f"Implicit() needs a true gradient, and the objective has a custom "
                f"derivative ({found[0]}); expected Reverse() for it"
            )

        @jax.custom_vjp
        def solve(operands):
            gradient = gradient_of(descent.objective)
            return _run(descent, operands, gradient, _loop)

        def forward(operands):
            out = solve(operands)
            return out, (out[0] if descent.goes_on else out, operands)

        def backward(residuals, v):
            w, operands = residuals
            v = v[0] if descent.goes_on else v
            rest = (operands.context, operands.batch)
            u = self.invert(descent.objective, w, *rest, v)[0]
            u = jax.tree.map(jnp.negative, u)
            smooth = [_is_smooth(leaf) for leaf in jax.tree.leaves(rest)]
            gradient = gradient_of(descent.objective)
            only, given = _restrict(lambda r: gradient(w, *r), rest, smooth)
            products = iter(jax.vjp(only, given)[1](u)[0])
            products = [next(products) if s else None for s in smooth]
            context, batch = jax.tree.unflatten(jax.tree.structure(rest), products)
            return (Operands(None, None, context, batch),)

        solve.defvjp(forward, backward)
        return solve(operands)

    def check(self, objective: Objective) -> None:
        """Raise ValueError for what has no solution, or one that the solver can't do."""
        if isinstance(objective, Game):
            raise ValueError(
                "Implicit() differentiates the minimum of one objective, and this learner's "
                "steps lead to none (adversaries, or a kernel's width that follows the "
                "features); expected MixedMode() or Reverse() here"
            )
        if isinstance(objective, FixedPoint) and self.solver == "cg":
            raise ValueError(
                "solver: conjugate gradients ('cg') need a symmetric matrix, and the "
                "Jacobian of a fixed point is none; expected Implicit() with 'gmres', "
                "'bicgstab', 'normal_cg', 'neumann', 'identity' or 'dense'"
            )

    def invert(
        self, objective: Objective, w, context, batch, v, start=None
    ) -> tuple[PyTree, jax.Array]:
        """What solves (J' + damping I) u = v, J the Jacobian at w of what is descended.

        Args: objective, w, context, batch: of the descent, at its end; v: like w; start:
            of the solver, like w; None = zeros.
        Returns: u, like w; |(J' + damping I) u - v| / |v| [], how well it is solved.
        """
        at = lambda w: gradient_of(objective)(w, context, batch)
        along = lambda u: jax.jvp(at, (w,), (u,))[1]
        across = lambda u: jax.vjp(at, w)[1](u)[0]
        product = across if is_field(objective) else along
        damped = lambda f: lambda u: optax.tree.add_scale(f(u), self.damping, u)
        how = {"iterations": self.iterations, "scale": self.scale, "start": start}
        if self.solver == "identity":
            u = jax.tree.map(lambda a: a / (1 + self.damping), v)
        else:
            u = linear.solve(damped(product), v, damped(along), self.solver, **how)
        return u, linear.residual(damped(product), u, v)


def _mixed_gradient(objective: Objective) -> Gradient:
    """The inner gradient with a forward-over-reverse derivative.

    A field is left to reverse mode: its Jacobian is not symmetric.
    """
    if is_field(objective):
        return objective.gradient

    @jax.custom_vjp
    def gradient(w, context, batch):
        return jax.grad(objective)(w, context, batch)

    def forward(w, context, batch):
        return gradient(w, context, batch), (w, context, batch)

    def backward(residuals, v):
        (w, *rest), smooth = residuals, jax.tree.map(_is_smooth, residuals)
        chosen = jax.tree.leaves(smooth)
        value, floats = _restrict(lambda r: objective(*r), residuals, chosen)
        rest = floats[len(jax.tree.leaves(w)) :]
        # The rest is closed over: a tangent of zeros would be computed with.
        gradients = lambda leaves: jax.grad(value)([*leaves, *rest])
        _, products = jax.jvp(gradients, (jax.tree.leaves(w),), (jax.tree.leaves(v),))
        products = iter(products)
        return jax.tree.map(lambda s: next(products) if s else None, smooth)

    gradient.defvjp(forward, backward)

    def named(w, context, batch):
        give = lambda g: checkpoint_name(g, INNER_GRADIENT)
        custom = custom_derivatives(objective, w, context, batch)
        right = jax.grad(objective) if custom else gradient
        return jax.tree.map(give, right(w, context, batch))

    return named


def custom_derivatives(f: Callable, *args) -> list[str]:
    """Names of the custom derivatives in the program of f(*args) that are a user's own.

    Those of jax, flax, optax and jaxmeta are derivatives of what they belong to.
    """
    return sorted(set(_customs(jax.make_jaxpr(f)(*args).jaxpr)))


def _customs(jaxpr) -> list[str]:
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("custom_jvp", "custom_vjp")):
            found += _defined_by_user(equation.params.values())
        for program in _programs(equation.params.values()):
            found += _customs(program)
    return found


def _programs(values) -> list:
    """The programs among an equation's parameters."""
    flat = [v for value in values for v in (value if _is_list(value) else [value])]
    return [getattr(v, "jaxpr", v) for v in flat if hasattr(v, "eqns")]


def _is_list(value) -> bool:
    return isinstance(value, (tuple, list))


def _defined_by_user(parts) -> list[str]:
    """The name of a function with a custom derivative, unless all of it, function and
    rules, is a library's. What `jax.custom_gradient` makes is anybody's."""
    infos = [i for p in parts if (i := getattr(p, "debug_info", None)) is not None]
    ours = (Path(m.__file__ or "").parent for m in (jax, optax, jaxmeta_types))
    libraries = {p.resolve() for p in ours}
    libraries |= {p.parent / "flax" for p in libraries}

    def theirs(info):
        file = Path(getattr(info, "func_filename", None) or "unknown").resolve()
        return libraries.isdisjoint(file.parents)

    wrapped = Path(getattr(infos[0], "func_filename", "") or "") if infos else Path()
    if infos and not any(map(theirs, infos)) and wrapped.stem != "custom_derivatives":
        return []
    names = [getattr(info, "func_name", None) for info in infos if theirs(info)]
    return [next(filter(None, names), "a function")]


def _loop(step, carry, each, steps, block=0, policy=None, unroll=1):
    """`jax.lax.scan` that stores the carry of every `block` steps; 0 stores everything.

    Inside a scan nothing can be merged across passes, so checkpoints need no barrier.
    """
    if steps == 1:  # no loop: XLA then shares the forward pass with the backward one
        carry, out = step(carry, jax.tree.map(lambda a: a[0], each))
        return carry, jax.tree.map(lambda a: a[None], out)
    remat = partial(jax.checkpoint, prevent_cse=False, policy=policy)
    if block == 0:
        return jax.lax.scan(step, carry, each, steps, unroll=unroll)
    if block == 1:
        return jax.lax.scan(remat(step), carry, each, steps, unroll=unroll)

    @remat
    def several(carry, each):
        return jax.lax.scan(step, carry, each, block, unroll=unroll)

    whole = steps // block * block
    split = lambda a: jnp.reshape(a[:whole], (whole // block, block, *a.shape[1:]))
    carry, out = jax.lax.scan(several, carry, jax.tree.map(split, each), whole // block)
    out = jax.tree.map(lambda a: jnp.reshape(a, (whole, *a.shape[2:])), out)
    if whole == steps:
        return carry, out
    rest = jax.tree.map(lambda a: a[whole:], each)
    carry, last = jax.lax.scan(remat(step), carry, rest, steps - whole)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, last)


def _displaced(start, carry):
    """A carry that is a constant, but for w = start + constant."""
    w, state = jax.lax.stop_gradient(carry)
    # in this order: start - start is exactly 0, so w stays what it was
    shift = lambda s, w: s - jax.lax.stop_gradient(s) + w
    return jax.tree.map(shift, start, w), state


def _run(descent, operands, gradient, loop):
    """The whole descent: w_steps, or the trajectory."""
    return descent.result(
        descent.run(operands, descent.begin(operands), gradient, loop)
    )


def _restrict(f, tree, chosen):
    """f as a function of the chosen leaves, a list; and that list."""
    leaves, structure = jax.tree.flatten(tree)

    def restricted(given):
        rest = iter(given)
        pairs = zip(chosen, leaves, strict=True)
        full = [next(rest) if c else leaf for c, leaf in pairs]
        return f(jax.tree.unflatten(structure, full))

    return restricted, [a for c, a in zip(chosen, leaves, strict=True) if c]


def _smooth_leaves(tree, **how) -> list:
    return [leaf for leaf in jax.tree.leaves(tree, **how) if _is_smooth(leaf)]


def _is_smooth(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _is_zero(leaf) -> bool:
    return isinstance(leaf, jax.custom_derivatives.SymbolicZero)


def _instantiate(leaf):
    return jnp.zeros(leaf.shape, leaf.dtype) if _is_zero(leaf) else leaf
