"""Both levels of a problem at once, each going on from where it was.

    w <- w after inner_steps, with the rule's state;  phi <- phi - optimizer(derivative)

Liu, Simonyan, Yang. DARTS: Differentiable Architecture Search. ICLR 2019, arXiv 1806.09055,
algorithm 1 (look-ahead of one step). Shaban et al. Truncated Back-propagation for Bilevel
Optimization. AISTATS 2019, arXiv 1810.10667 (of several). Dagreou et al. A framework for
bilevel optimization that enables stochastic and global variance reduction algorithms.
NeurIPS 2022, arXiv 2201.13409 (the linear system goes on as well).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys, meshes
from jaxmeta.adjoints import Implicit, MixedMode
from jaxmeta.bilevel import Functions, InnerFn, OuterFn, descent_of, set_entered
from jaxmeta.boundary import remembered
from jaxmeta.inner import Adjoint, FixedPoint
from jaxmeta.outer import MetaState, descended
from jaxmeta.task_axis import all_true, are_finite
from jaxmeta.types import InitFn, Outer, PyTree, Task


class OnlineState(NamedTuple):
    """Both levels, and what their optimisers keep: all of a size that no step changes."""

    params: PyTree  # phi
    opt_state: PyTree  # the outer optimiser's
    step: jax.Array  # [] int32, outer steps done
    w: PyTree
    inner_state: PyTree  # the inner rule's
    u: PyTree  # the last solution of the linear system, like w; () without one


@remembered
def online_bilevel(
    inner: InnerFn | FixedPoint,
    outer: OuterFn,
    optimizer: optax.GradientTransformation,
    *,
    init: InitFn,
    start: InitFn,
    inner_steps: int = 1,
    inner_lr: float | optax.Schedule = 0.1,
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
    adjoint: Adjoint = MixedMode(),
) -> Outer:
    """Both levels at once: the inner problem goes on from where it was, for a few steps,
    and then phi takes one.

    The derivative is that of the last steps, w before them a constant (look-ahead: with one
    step DARTS' second order, with a full adjoint of k steps K-RMD), or with `Implicit` that
    of the solution, the linear system going on from its last solution as well. Memory does
    not grow with the steps.

    Args:
        inner, outer, init, start, inner_lr, rule: as in `bilevel`.
        optimizer: of phi. inner_steps: of w, for one of phi.
        adjoint: as in `bilevel`; memory grows with `inner_steps` alone, if it does.

    Returns: an `Outer` for `fit`, with `OnlineState`s, which draws one task a step, its
        support set for w and its query set for phi, e.g. minibatches of one problem
        (`jm.tasks.single(train, validation, batch_size=32)`). Metrics: as in `bilevel`,
        `inner_residual` only with `Implicit`. A step in which anything is not finite moves
        nothing (`skipped`).
    Raises: ValueError as `bilevel`, and for an optimizer that is none.
    Source: see the module.

    >>> import jax, jax.numpy as jnp, optax, jaxmeta as jm
    >>> half = lambda a: jnp.sum(a**2) / 2
    >>> outer = jm.online_bilevel(
    ...     lambda w, phi, batch: half(w - phi), lambda w, phi, batch: half(w - 1),
    ...     optax.sgd(0.1), init=lambda key: jnp.zeros(2), start=lambda key: jnp.zeros(2),
    ...     inner_lr=0.5, adjoint=jm.Implicit("cg"))
    >>> nothing = jm.Batch(jnp.zeros(1))
    >>> state = jm.fit(outer, jm.tasks.single(nothing, nothing), steps=200,
    ...                key=jax.random.key(0))
    >>> state.params.round(3).tolist()
    [1.0, 1.0]
    """
    functions = Functions(inner, outer, init, start)
    checks.check_optimizer(optimizer)
    descend = descent_of(
        "online_bilevel", functions, inner_steps, inner_lr, rule, adjoint
    )

    def begin(key):
        key_phi, key_w = jax.random.split(key)
        phi, w = init(key_phi), start(key_w)
        opt_state, inner_state = (
            optimizer.init(phi),
            descend.rule(descend.hyper).init(w),
        )
        u = jax.tree.map(jnp.zeros_like, w) if isinstance(adjoint, Implicit) else ()
        state = phi, opt_state, jnp.zeros((), jnp.int32), w, inner_state, u
        return OnlineState(*meshes.copied(state))

    def look(phi, state: OnlineState, task: Task):
        """The outer value, with its derivative in phi; metrics, w and the rest after."""
        given = state.w, phi, task.support
        w, inner_state = descend(*given, state=state.inner_state)
        if isinstance(adjoint, Implicit):
            found = functions.at_solution(w, phi, task, adjoint, state.u)
            value, metrics, u = found
        else:
            (value, metrics), u = functions.judge(w, phi, task.query), ()
        return value, (metrics | {"loss": value}, (w, inner_state, u))

    def step(state: OnlineState, sampler, key):
        task = sampler.sample(keys.tasks(keys.parts(key)[0], 1)[0])
        task = Task(*map(set_entered, task, Task._fields))
        functions.check_inner(state.w, state.params, task.support)
        functions.check_outer(state.w, state.params, task)
        (value, (metrics, after)), grads = jax.value_and_grad(look, has_aux=True)(
            state.params, state, task
        )
        before = MetaState(*state[:3])
        meta, skipped = descended(optimizer, before, grads, value)
        fine = all_true(are_finite(after)) & (skipped["skipped"] == 0)
        kept = OnlineState(before.params, before.opt_state, meta.step, *state[3:])
        state = OnlineState(*meta, *after)
        state = jax.tree.map(lambda a, b: jnp.where(fine, a, b), state, kept)
        return state, metrics | {"skipped": 1 - fine.astype(value.dtype)}

    return Outer(begin, step)
