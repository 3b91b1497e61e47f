"""Problems in two levels: an outer one over the solutions of an inner one.

    min_phi  outer(w*(phi), phi, query)   with   w*(phi) = argmin_w inner(w, phi, support)

Franceschi et al. 2018, Bilevel Programming for Hyperparameter Optimization and
Meta-Learning, arXiv 1806.04910. What is not meta-learning has the same form: penalties,
weights of examples, labels, architectures, losses, the training set itself as phi. There is
one task then, training and validation set: `jm.tasks.single`.

    total derivative = d outer/dphi - (d2 inner/dw dphi)' (d2 inner/dw2)^-1 d outer/dw

or, of w_k after k steps in place of w*, by the chain rule through them: the adjoint's choice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Literal

from jaxmeta import checks
from jaxmeta.adjoints import Implicit, MixedMode
from jaxmeta.batches import blank_padding
from jaxmeta.boundary import entered, remembered
from jaxmeta.inner import Adjoint, FixedPoint, descent, gradient_of
from jaxmeta.types import Batch, InitFn, MetaLearner, Metrics, PyTree, Task


class InnerFn(Protocol):
    """(w, phi, support) -> [], what w descends."""

    def __call__(self, w: Any, phi: Any, batch: Batch, /) -> jax.Array: ...


class OuterFn(Protocol):
    """(w, phi, query) -> [], or ([], metrics): what phi descends."""

    def __call__(self, w: Any, phi: Any, batch: Batch, /) -> Any: ...


class Solution(NamedTuple):
    """An adapted learner: the inner parameters, and the outer ones they belong to."""

    w: PyTree
    phi: PyTree


@remembered
def bilevel(
    inner: InnerFn | FixedPoint,
    outer: OuterFn,
    *,
    init: InitFn,
    start: InitFn,
    inner_steps: int,
    inner_lr: float | optax.Schedule = 0.1,
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
    adjoint: Adjoint = MixedMode(),
    predict: Callable[..., Any] | None = None,
) -> MetaLearner:
    """A problem in two levels as a learner: its meta-parameters are phi, it adapts by
    solving the inner problem from the start, its loss is the outer one.

    Args:
        inner: (w, phi, support) -> [], what is descended; or `jm.FixedPoint(f)`.
        outer: (w, phi, query) -> [], or ([], {name: []}).
        init: key -> phi, a pytree of floating arrays.
        start: key -> w_0, the same for all phi; the key is that of the task (a fixed one
            where there is none). A learned start is a displacement: inner(phi + w, ...).
        inner_steps, inner_lr, rule: of the inner descent, as in `maml`.
        adjoint: how to differentiate: `MixedMode()`, `Reverse()`, `Truncated(k)`,
            `Forward()` through the steps, `Implicit(...)` at their end.
        predict: (w, phi, inputs, mask) -> outputs, if any are asked for.

    Returns: a `MetaLearner`; `adapt` gives a `Solution`. Metrics: those of `outer`, `loss`,
        and `inner_residual`, |d inner/dw| at the end, by which an unconverged inner problem
        is known. In training with `Implicit` also `linear_residual`, of the linear system.
    Raises: ValueError for wrong arguments, an adjoint without a gradient for phi
        (`FirstOrder`) or a solver that can't be (cg for a fixed point), functions that give
        no scalar, and a problem that does not depend on phi.
    Source: Franceschi et al. 2018; Lorraine et al. 2020, arXiv 1911.02590 (implicit).

    >>> import jax, jax.numpy as jnp, optax, jaxmeta as jm
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> sets = jm.Batch(x[:10], x[:10].sum(1)), jm.Batch(x[10:], x[10:].sum(1))
    >>> error = lambda w, batch: jnp.mean((batch.x @ w - batch.y) ** 2)
    >>> ridge = jm.bilevel(
    ...     lambda w, phi, train: error(w, train) + jnp.exp(phi) * jnp.sum(w**2),
    ...     lambda w, phi, validation: error(w, validation),
    ...     init=lambda key: jnp.zeros(()), start=lambda key: jnp.zeros(3), inner_steps=20)
    >>> state = jm.fit(ridge, jm.tasks.single(*sets), optax.sgd(1.0), steps=20,
    ...                tasks_per_step=1, key=jax.random.key(1))
    >>> bool(state.params < -1)  # without noise, the less penalty the better
    True
    """
    functions = Functions(inner, outer, init, start)
    if predict is not None:
        checks.check_functions(predict=predict)
    descend = descent_of("bilevel", functions, inner_steps, inner_lr, rule, adjoint)

    def adapt(phi, support, key=None):
        support = set_entered(support, "support")
        w = start(jax.random.key(0) if key is None else key)
        functions.check_inner(w, phi, support)
        return Solution(descend(w, phi, support), phi)

    def asked(adapted, inputs, mask=None):
        if predict is None:
            raise ValueError(
                "predict: this bilevel problem has none; expected jm.bilevel(..., "
                "predict=(w, phi, inputs, mask) -> outputs)"
            )
        return predict(adapted.w, adapted.phi, entered(inputs), mask)

    def solved(phi, task: Task, key):
        checks.check_kind(task, Task, "task")
        w = adapt(phi, task.support, key).w
        task = Task(*map(set_entered, task, Task._fields))
        functions.check_outer(w, phi, task)
        return w, task

    def loss(phi, task, key=None):
        w, task = solved(phi, task, key)
        value, metrics = functions.judge(w, phi, task.query)
        field = gradient_of(inner)(*jax.lax.stop_gradient((w, phi)), task.support)
        found = {"loss": value, "inner_residual": optax.tree.norm(field)}
        return value, metrics | found

    implicit = adjoint if isinstance(adjoint, Implicit) else None

    def objective(params, task, key, step):
        del step
        assert implicit is not None
        w, task = solved(params, task, key)
        return functions.at_solution(w, params, task, implicit)[:2]

    compiled = jax.jit(adapt), asked, jax.jit(loss)  # each once, if called as it is
    return MetaLearner(init, *compiled, objective if implicit else None)


def descent_of(name, functions, inner_steps, inner_lr, rule, adjoint):
    """The inner `Descent` of a problem, whose derivative is in phi alone.

    Args: name: of the constructor, for errors; functions; the rest as in `bilevel`.
    Raises: ValueError as `jaxmeta.inner.descent`.
    """
    how = {"steps": inner_steps, "rule": rule, "inner_lr": inner_lr, "least": 1}
    learns = ("context",)
    return descent(name, functions.inner, adjoint=adjoint, learns=learns, **how)


class Functions:
    """What a problem is made of, and the questions that both doors ask of it."""

    def __init__(self, inner, outer, init, start):
        checks.check_functions(inner=inner, outer=outer, init=init, start=start)
        self.inner, self.outer = inner, outer

    def judge(self, w, phi, query) -> tuple[jax.Array, Metrics]:
        """The outer value [] and metrics."""
        found = self.outer(w, phi, query)
        value, metrics = found if isinstance(found, tuple) else (found, {})
        return value, metrics

    def at_solution(self, w, phi, task: Task, adjoint: Implicit, start=None):
        """The outer value at w as a solution, and its derivative in phi by `adjoint`.

        With u = (d2 inner/dw2)^-1 d outer/dw and g = d inner/dw, the value is that of
        outer(w, phi) - u'g(w, phi), w and u constants, for g = 0; so is its derivative.

        Returns: value [], metrics, u; start: where the linear system is solved from.
        """
        w = jax.lax.stop_gradient(w)
        value, metrics = self.judge(w, phi, task.query)
        v = jax.grad(lambda w: self.judge(w, phi, task.query)[0])(w)
        fixed = jax.lax.stop_gradient((phi, v))
        u, residual = adjoint.invert(
            self.inner, w, fixed[0], task.support, fixed[1], start
        )
        g = gradient_of(self.inner)(w, phi, task.support)
        turned = jnp.asarray(optax.tree.vdot(jax.lax.stop_gradient(u), g))
        found = {"inner_residual": optax.tree.norm(jax.lax.stop_gradient(g))}
        found |= {"loss": value, "linear_residual": residual}
        total = value - (turned - jax.lax.stop_gradient(turned))
        return total, metrics | jax.lax.stop_gradient(found), u

    def check_inner(self, w, phi, support) -> None:
        """Raise ValueError unless it gives a number of floating parameters."""
        for name, tree in (("init", phi), ("start", w)):
            leaves = jax.tree.leaves(tree)
            if not leaves or not all(map(checks.is_floating, map(jnp.asarray, leaves))):
                raise ValueError(
                    f"{name}: expected a function of a key that gives floating arrays, got "
                    f"{checks.few(map(checks.said, leaves)) or 'none'}"
                )
        found = jax.eval_shape(self.inner, w, phi, support)
        if getattr(found, "shape", None) != ():
            raise ValueError(
                "inner: expected (w, phi, batch) -> one number, an array of shape (), got "
                f"{checks.said(found)}"
            )

    def check_outer(self, w, phi, task: Task) -> None:
        """Raise ValueError unless it gives a number, which depends on phi."""
        found = jax.eval_shape(self.judge, w, phi, task.query)
        if getattr(found[0], "shape", None) != () or not isinstance(found[1], dict):
            raise ValueError(
                "outer: expected (w, phi, batch) -> one number, or a number and a dict of "
                f"metrics, got {checks.said(found[0])}"
            )
        value = lambda w, phi: self.judge(w, phi, task.query)[0]
        directly = _depends(lambda phi: value(w, phi), phi)
        by_w = _depends(lambda w: value(w, phi), w) and _depends(
            lambda phi: gradient_of(self.inner)(w, phi, task.support), phi
        )
        if not directly and not by_w:
            raise ValueError(
                "outer: expected a function that depends on phi, itself or by w; outer has "
                "no phi in it, and either no w, or the steps of inner are the same for all "
                "phi, so the gradient would be zero"
            )


def _depends(f: Callable, x: PyTree) -> bool:
    """Whether f(x) can have a derivative other than zero, by its program."""
    out, pull = jax.vjp(f, x)
    program = jax.make_jaxpr(pull)(out).jaxpr
    known = set(program.invars)
    for equation in program.eqns:
        if any(not isinstance(v, Literal) and v in known for v in equation.invars):
            known.update(equation.outvars)
    return any(not isinstance(v, Literal) and v in known for v in program.outvars)


def set_entered(batch: Batch, what: str) -> Batch:
    """A set as every door takes it."""
    checks.check_kind(batch, Batch, what)
    batch = batch._replace(x=entered(batch.x, f"{what} inputs"))
    batch = jax.tree.map(jnp.asarray, batch)
    checks.check_batch(batch, what)
    return blank_padding(batch)
