"""GradNorm: losses weighted so that all kinds of tasks train at similar rates.

Chen, Badrinarayanan, Lee, Rabinovich. GradNorm: Gradient Normalization for Adaptive Loss
Balancing in Deep Multitask Networks. ICML 2018, arXiv 1711.02257. Algorithm 1:

    L = sum_k w_k L_k,   n_k = |grad w_k L_k|,   r_k = L_k / L_k(0)
    w <- descends  sum_k |n_k - mean(n) (r_k / mean(r))^alpha|,  the target a constant
    w <- w kinds / sum(w)

Departures:
- L is a mean over kinds, not a sum.
- The norms are of all parameters, unless `shared` names the paper's last shared layer.
- A weight stays above 0.001.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys
from jaxmeta.boundary import remembered
from jaxmeta.multitask.gradients import OfTasks, gramian_of, of_tasks, weighted
from jaxmeta.multitask.kinds import Which, member
from jaxmeta.outer import MetaState, descended, init_state, sample_tasks
from jaxmeta.task_axis import finite, keys_of
from jaxmeta.types import MetaLearner, Outer, PyTree

LEAST = 1e-3  # weight


class Balance(NamedTuple):
    """The weights of the kinds, and what their next step needs."""

    w: jax.Array  # [kinds], 1 on average
    first: jax.Array  # [kinds] L_k(0), 0 before there is one
    opt_state: PyTree


class GradNormState(NamedTuple):
    """A `MetaState`, and the balance of the kinds of tasks."""

    state: MetaState
    balance: Balance

    @property
    def params(self) -> PyTree:
        """The meta-parameters."""
        return self.state.params

    @property
    def step(self) -> jax.Array:
        """Meta-steps done."""
        return self.state.step


class OfKinds(NamedTuple):
    """Means over the tasks of each kind."""

    value: jax.Array  # [kinds]
    gradient: PyTree  # [kinds, ...]
    there: jax.Array  # [kinds] whether there was a task of it


@remembered
def gradnorm(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    kinds: int,
    which: Which,
    *,
    alpha: float = 1.5,
    weights_optimizer: optax.GradientTransformation = optax.adam(0.025),
    shared: Callable[[PyTree], PyTree] | None = None,
    tasks_per_step: int = 4,
    tasks_at_once: int | None = None,
) -> Outer:
    """Train a learner, its kinds of tasks at similar rates.

    Args:
        learner, optimizer, tasks_per_step, tasks_at_once: as in `make_outer`; losses are
            positive.
        kinds, which: as in `uncertainty_weighting`; a kind that has no task in a meta-step
            keeps its weight, but for the scale.
        alpha: how strongly kinds that learn slowly are helped, >= 0; 0 = equal norms.
        weights_optimizer: of the weights.
        shared: params -> the part of them whose gradients' norms count; None = all.

    Returns: an `Outer` whose states are `GradNormState`s; a meta-step that is not finite
        changes neither parameters nor weights.
    Raises: ValueError for numbers out of range, or what is no learner or no function.
    Source: Chen et al. 2018, algorithm 1.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> steep = lambda task: (abs(task.query.y).max() > 2).astype(int)
    >>> outer = jm.gradnorm(learner, optax.adam(1e-3), 2, steep)
    >>> state = jm.fit(outer, jm.tasks.sinusoid(), steps=10, key=jax.random.key(0))
    >>> round(float(state.balance.w.sum()), 4)
    2.0
    """
    checks.check_optimizer(optimizer)
    checks.check_sizes(kinds=kinds, tasks_per_step=tasks_per_step)
    checks.check_functions(which=which)
    checks.check_numbers(least=0, alpha=alpha)
    checks.check_optimizer(weights_optimizer, "weights_optimizer")
    if shared is not None:
        checks.check_functions(shared=shared)
    run, settled = of_tasks(learner, tasks_at_once), learner.settle
    part = shared or (lambda tree: tree)

    def init(key):
        state, w = init_state(learner, optimizer, key), jnp.ones(kinds)
        balance = Balance(w, jnp.zeros(kinds), weights_optimizer.init(w))
        return GradNormState(state, balance)

    def step(now: GradNormState, sampler, key):
        key_tasks, key_loss = keys.parts(key)
        tasks = sample_tasks(sampler, key_tasks, tasks_per_step)
        own = keys_of(key_loss, tasks_per_step)
        each = run(now.params, tasks, own, now.step)
        marks = jax.vmap(lambda task: member(which(task), kinds))(tasks)
        found = _of_kinds(each, marks)
        w = now.balance.w / kinds
        gradient, value = weighted(w, found.gradient), w @ found.value
        state, skipped = descended(optimizer, now.state, gradient, value)
        norms = jnp.sqrt(jnp.diag(gramian_of(jax.vmap(part)(found.gradient))))
        balance = _balanced(now.balance, found, norms, alpha, weights_optimizer)
        fine = (skipped["skipped"] == 0) & finite(balance)
        keep = lambda a, b: jnp.where(fine, a, b)
        balance = jax.tree.map(keep, balance, now.balance)
        return GradNormState(state, balance), each.mean() | skipped

    def settle(now: GradNormState, sampler):
        assert settled is not None
        params = settled(now.params, sampler)
        return now._replace(state=now.state._replace(params=params))

    return Outer(init, step, learner, settled and settle)


def _of_kinds(each: OfTasks, marks: jax.Array) -> OfKinds:
    """Args: marks: [tasks, kinds], 1 where a task is of a kind."""
    number = jnp.sum(marks, axis=0)
    share = (marks / jnp.maximum(number, 1)[None]).T
    gradient = jax.tree.map(
        lambda a: jnp.tensordot(share.astype(a.dtype), a, 1), each.gradient
    )
    return OfKinds(share.astype(each.value.dtype) @ each.value, gradient, number > 0)


def _balanced(
    now: Balance, found: OfKinds, norms: jax.Array, alpha: float, optimizer
) -> Balance:
    """The weights after a step towards equal rates. norms: [kinds], of grad L_k."""
    there = found.there
    first = jnp.where(there & (now.first == 0), found.value, now.first)
    rates = found.value / jnp.where(first == 0, 1, first)
    mean = lambda a: jnp.sum(jnp.where(there, a, 0)) / jnp.sum(there)
    target = mean(now.w * norms) * (rates / mean(rates)) ** alpha
    away = lambda w: jnp.sum(jnp.where(there, jnp.abs(w * norms - target), 0))
    updates, opt_state = optimizer.update(jax.grad(away)(now.w), now.opt_state, now.w)
    w = now.w + jnp.where(there, jnp.asarray(updates), 0)
    w = jnp.maximum(w, LEAST)
    return Balance(w * len(w) / jnp.sum(w), first, opt_state)
