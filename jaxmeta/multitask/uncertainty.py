"""Losses weighted by their uncertainty, which is learned.

Kendall, Gal, Cipolla. Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
Geometry and Semantics. CVPR 2018, arXiv 1705.07115. Section 3.2, with s = log sigma^2:

    L(theta, s) = sum_k exp(-s_k) L_k(theta) + s_k,   in s least where s_k = log L_k

Departures: a regression's loss has a factor of 1/2 there, and so has its s_k; that is
another unit of the loss.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.multitask.kinds import Which, member
from jaxmeta.outer import objective_of
from jaxmeta.types import MetaLearner, PyTree


class Uncertain(NamedTuple):
    """Meta-parameters of a learner, and how little the losses are to be believed."""

    params: PyTree
    s: jax.Array  # [kinds], logarithms of variances


@remembered
def uncertainty_weighting(
    learner: MetaLearner, kinds: int, which: Which
) -> MetaLearner:
    """A learner whose training weighs the losses of kinds of tasks by how uncertain they
    are, which it learns with the rest.

    Args:
        learner: what is trained, on losses that are positive.
        kinds: of tasks. which: task -> its kind, [] whole number in 0..kinds-1, e.g.
            `lambda task: task.query.x["kind"][0]`; of any other the loss is NaN.

    Returns: a learner whose params are an `Uncertain`; it adapts, predicts and is tested
        as the learner is with `params.params`.
    Raises: ValueError for kinds below 1, or what is no learner or no function.
    Source: Kendall et al. 2018, section 3.2.

    >>> import jax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> steep = lambda task: (abs(task.query.y).max() > 2).astype(int)
    >>> weighed = jm.uncertainty_weighting(learner, 2, steep)
    >>> weighed.init(jax.random.key(0)).s.shape
    (2,)
    """
    checks.check_learner(learner)
    checks.check_sizes(kinds=kinds)
    checks.check_functions(which=which)
    own, settled = objective_of(learner), learner.settle

    def init(key):
        return Uncertain(learner.init(key), jnp.zeros(kinds))

    def adapt(params, support, key=None):
        return learner.adapt(params.params, support, key)

    def loss(params, task, key=None):
        return learner.loss(params.params, task, key)

    def objective(params, task, key, step):
        value, metrics = own(params.params, task, key, step)
        s = member(which(task), kinds) @ params.s
        return jnp.exp(-s) * value + s, metrics

    def settle(params, sampler):
        assert settled is not None
        return params._replace(params=settled(params.params, sampler))

    return MetaLearner(
        init, adapt, learner.predict, loss, objective, settled and settle
    )
