"""Reptile: move the initialisation towards the adapted weights.

Nichol, Achiam, Schulman. On First-Order Meta-Learning Algorithms. 2018, arXiv
1803.02999. Algorithms 1 (serial: one task a step) and 2 (batched):

    theta <- theta + epsilon (1/n) sum_i (theta'_i - theta),  theta'_i = U^k_i(theta)

The meta-gradient is the averaged displacement theta - theta'_i, so the outer optimiser
`optax.sgd(epsilon)` is the paper's.

Departures:
- The inner rule is gradient descent on the full support set by default; the paper's is
  Adam without momentum on minibatches.
- A rule's state starts anew in each task; the authors' code keeps Adam's second moments
  from task to task.

Meta-parameters: theta, exactly the parameters of the model.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import MixedMode
from jaxmeta.batches import examples, of_examples
from jaxmeta.learners.gradient.parts import displacement
from jaxmeta.learners.objectives import (
    predictor,
    query_loss,
    query_metrics,
    support_objective,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import Batch, MetaLearner, Model


def _minibatches(key, n: int, steps: int, size: int):
    """[steps, size] indices: pass after pass through n shuffled examples."""
    passes = -(-steps * size // n)
    order = lambda key: jax.random.permutation(key, n)
    indices = jax.vmap(order)(jax.random.split(key, passes))
    return jnp.reshape(indices, -1)[: steps * size].reshape(steps, size)


@register(
    paper="Nichol et al. 2018, arXiv 1803.02999",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def reptile(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.01,
    inner_steps: int = 5,
    inner_batch: int | None = None,
    loss: losses.Loss = losses.cross_entropy,
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """Reptile: first-order meta-learning without a query set.

    Its query loss is reported, but not descended. The paper trains on
    more shots than it tests on: give the training sampler more.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: step size of adaptation; a number, or a schedule of the inner step.
        inner_steps: k, gradient steps of adaptation; with one it is joint training.
        inner_batch: support examples of an inner step, drawn without replacement from
            one pass after the other (with `key`); None = the full support set, which
            alone may be padded.
        loss: loss of one example.
        rule: makes the inner update rule from `inner_lr`. The paper's is Adam without
            momentum, `functools.partial(optax.adam, b1=0)`.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters.
    Raises: ValueError for a negative `inner_lr`, `inner_steps` below 1, or an
        `inner_batch` below 1 or larger than a support set.
    """
    if inner_batch is not None:
        checks.check_sizes(inner_batch=inner_batch)
    full = support_objective(model, loss)

    def objective(theta, context, batch):
        if inner_batch is None:
            return full(theta, context, batch)
        support, chosen = batch
        take = lambda a: jnp.take(a, chosen, 0)
        drawn = Batch(of_examples(take, support.x), jax.tree.map(take, support.y))
        return full(theta, context, drawn)

    descend = inner.descent(
        "reptile",
        objective,
        steps=inner_steps,
        adjoint=MixedMode(),
        rule=rule,
        inner_lr=inner_lr,
        learns=(),
        least=1,
    )

    def adapt(params, support: Batch, key=None):
        chosen = None
        if inner_batch is not None:
            if support.mask is not None:
                raise ValueError(
                    "inner_batch: a padded support set (with a mask) can't be drawn "
                    "from; expected inner_batch=None, the full support set"
                )
            n = examples(support)
            if inner_batch > n:
                raise ValueError(
                    f"inner_batch: {inner_batch} examples can't be drawn from a support "
                    f"set of {n}; expected at most {n}"
                )
            key = jax.random.key(0) if key is None else key
            chosen = _minibatches(key, n, inner_steps, inner_batch)
        return descend(params, (), support, xs=chosen)

    predict = predictor(model)
    test = query_loss(adapt, predict, loss)
    towards = displacement(adapt, query_metrics(predict, loss))
    return MetaLearner(model.init, adapt, predict, test, towards)
