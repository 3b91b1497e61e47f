"""MAML that learns when to stop: adaptive computation in the inner loop.

Graves. Adaptive Computation Time for Recurrent Neural Networks. 2016, arXiv 1603.08983.
Sections 2 and 2.1, with the inner steps of MAML (Finn et al. 2017) as the steps of the
recurrent network. After step n = 1, ..., `inner_steps`

    h_n = sigmoid(a log L_support(w_n) + b_n)                       (eq. 5)
    N = min{n : sum_{k <= n} h_k >= 1 - epsilon}, or the last       (eq. 6)
    p_n = h_n for n < N,   p_N = R = 1 - sum_{k < N} h_k            (eqs. 7, 8)
    theta' = sum_n p_n w_n                                          (eq. 9)
    objective = L_query(theta') + tau (N + R)                       (eqs. 10 to 12)

All steps are run, so that one program serves all tasks; what N saves is what stopping there
would save. N has no derivative; R has.

Departures:
- What halts sees the support loss and the number of the step, not the whole state w_n.

Meta-parameters: theta, and a, b of the halting.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.objectives import predictor, query_metrics, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree, Task

SMALL = 1e-8  # under the logarithm


class HaltingMAML(NamedTuple):
    """Meta-parameters: where a descent starts, and what makes it halt."""

    theta: PyTree  # of the model
    a: jax.Array  # []
    b: jax.Array  # [steps]


class Halted(NamedTuple):
    """Weights of the steps of a descent, and how many it takes."""

    p: jax.Array  # [steps], that add up to 1
    steps: jax.Array  # [] N
    rest: jax.Array  # [] R


def halted(h: jax.Array, epsilon: float = 0.01) -> Halted:
    """Eqs. 6 to 8 of Graves.

    Args: h: [steps], each in 0..1. epsilon: so that one step may be enough.

    >>> import jax.numpy as jnp
    >>> halted(jnp.array([0.5, 0.25, 0.5, 0.9])).p
    Array([0.5 , 0.25, 0.25, 0.  ], dtype=float32)
    """
    before = jnp.concatenate([jnp.zeros_like(h[:1]), jnp.cumsum(h)[:-1]])
    reached = before < 1 - epsilon
    steps = jnp.sum(reached)
    last = jnp.arange(len(h)) == steps - 1
    rest = jnp.sum(jnp.where(last, 1 - before, 0))
    p = jnp.where(last, rest, jnp.where(reached, h, 0))
    # whether it halts at an h that is NaN can't be known
    known = jnp.where(jnp.any(last & jnp.isnan(h)), jnp.nan, 1)
    return Halted(known * p, known * steps, known * rest)


@register(
    paper="Graves 2016, arXiv 1603.08983",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def halting_maml(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.1,
    inner_steps: int = 5,
    ponder_weight: float = 0.01,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """MAML whose inner loop learns when to stop, task by task (adaptive computation time).

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: step size of adaptation; a number, or a schedule of the inner step.
        inner_steps: gradient steps of adaptation at most, >= 1.
        ponder_weight: tau, what a step costs, in units of the loss.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; its params are an `HaltingMAML`, `adapted` a tree of the model's
        parameters, the weighted mean of those after each step. `loss` is the query loss,
        and the metric `steps` is N; `objective` has the ponder cost.
    Raises: ValueError for `inner_steps` below 1, a negative `ponder_weight`, an adjoint that
        gives no gradient for an initialisation, or parameters of other steps.

    >>> import jax, jaxmeta as jm
    >>> learner = jm.halting_maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> task = jm.tasks.sinusoid(shots=5).sample(jax.random.key(0))
    >>> loss, metrics = learner.loss(learner.init(jax.random.key(1)), task)
    >>> float(metrics["steps"])
    2.0
    """
    checks.check_numbers(least=0, ponder_weight=ponder_weight)
    fit = support_objective(model, loss)
    descend = inner.descent(
        "halting_maml",
        fit,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        least=1,
    )

    def init(key):
        # h = 0.73: few steps at the beginning (Graves, section 3)
        return HaltingMAML(model.init(key), jnp.zeros(()), jnp.ones(inner_steps))

    def path(params, support):
        """The weighted mean of the parameters after each step, and the halting."""
        _check_steps(params, inner_steps)
        w = descend(params.theta, (), support, trajectory=True)
        at = lambda w, k: fit(w, (), inner.at_step(support, k))
        fits = jax.vmap(at)(w, jnp.arange(inner_steps))
        h = jax.nn.sigmoid(params.a * jnp.log(fits + SMALL) + params.b)
        halting = halted(h)
        return jax.tree.map(lambda leaf: _mean(halting.p, leaf), w), halting

    def adapt(params, support, key=None):
        del key  # deterministic
        return path(params, support)[0]

    predict = predictor(model)
    judge = query_metrics(predict, loss)

    def judged(params, task):
        adapted, halting = path(params, task.support)
        value, metrics = judge(adapted, task)
        # of a task that can't be judged, nothing is said
        steps = jnp.where(jnp.isnan(value), jnp.nan, halting.steps)
        return value, metrics | {"steps": steps}, halting

    def task_loss(params, task: Task, key=None):
        del key
        return judged(params, task)[:2]

    def objective(params, task: Task, key, step):
        del key, step
        value, metrics, halting = judged(params, task)
        return value + ponder_weight * (halting.steps + halting.rest), metrics

    return MetaLearner(init, adapt, predict, task_loss, objective)


def _mean(p: jax.Array, w: jax.Array) -> jax.Array:
    """sum_n p_n w_n; what has no weight may be anything."""
    p = jnp.reshape(p, (-1, *(1,) * (w.ndim - 1))).astype(w.dtype)
    return jnp.sum(p * jnp.where(p > 0, w, 0), axis=0)


def _check_steps(params: HaltingMAML, inner_steps: int) -> None:
    """Raise ValueError unless each step has its own number b."""
    if params.b.shape != (inner_steps,):
        raise ValueError(
            f"inner_steps: these parameters halt within {len(params.b)} inner steps, this "
            f"learner takes up to {inner_steps}; expected as many"
        )
