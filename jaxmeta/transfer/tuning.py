"""Fine-tuning: what was pre-trained goes on to learn, all of it or a part of it.

    theta_k = merge(theta_0, m_k),   m_{k+1} = m_k + rule(dL/dm (theta_k, batch))

`fine_tune` runs this on one batch, stage by stage. `restricted` makes m the parameters
of a model: to any learner it is a network like others, of which less can move.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import MixedMode
from jaxmeta.batches import blank_padding, examples, forward
from jaxmeta.boundary import entered, soundness
from jaxmeta.models import parameters
from jaxmeta.once import compute_once
from jaxmeta.transfer import partitions
from jaxmeta.transfer.partitions import Partition
from jaxmeta.types import Batch, Model, PyTree


class Stage(NamedTuple):
    """A part of a plan.

    partition: what moves. optimizer: how, an optax optimiser. steps: how often, >= 1.
    """

    partition: Partition
    optimizer: optax.GradientTransformation
    steps: int


def restricted(model: Model, params: PyTree, partition: Partition) -> Model:
    """A pre-trained model of which a part moves; the rest are constants of it.

    Args:
        model: the network. params: its pre-trained parameters, theta_0.
        partition: what moves, e.g. `lora(4, head="head")`.

    Returns: a `Model`; its params are `moved` of the partition, its outputs those of the
        model with `partition.merge(params, moved)`. It starts from `params`.
    Raises: ValueError for parameters that are not the model's, or of which nothing moves.

    >>> import jax, jaxmeta as jm
    >>> model = jm.models.mlp(2, 3, hidden=(4,))
    >>> trained = model.init(jax.random.key(0))
    >>> low_rank = restricted(model, trained, jm.transfer.lora(1, head="head"))
    >>> learner = jm.anil(low_rank, head="head")  # or jm.maml(low_rank), or another
    >>> jax.tree.map(lambda a: a.shape, learner.init(jax.random.key(1))["dense1"])
    {'kernel': {'a': (2, 1), 'b': (1, 4)}}
    """
    checks.check_models(model=model)
    check_partition(partition)
    theta_0 = _fitting(model, params)
    jax.eval_shape(partition.init, theta_0, _any_key())

    def init(key):  # copies: what is trained may be donated
        return jax.tree.map(jnp.array, partition.init(theta_0, key))

    def apply(moved, x, *mask):
        return model.apply(partition.merge(theta_0, moved), x, *mask)

    def noisy(moved, *how):
        assert model.noisy is not None
        return model.noisy(partition.merge(theta_0, moved), *how)

    return Model(init, apply, model.uses_mask, noisy if model.noisy else None)


def fine_tune(
    model: Model,
    params: PyTree,
    batch: Batch,
    plan: tuple[Stage, ...],
    key: jax.Array | None = None,
    *,
    loss: losses.Loss = losses.cross_entropy,
    batch_size: int | None = None,
) -> PyTree:
    """Train a pre-trained model on one batch, a stage of the plan after the other.

    A pure function of its arrays: `vmap` over `batch` fine-tunes to many tasks at once,
    and it has a derivative in `params` (of the start, as in `maml`).

    Args:
        model: the network; its `apply`, so dropout is off.
        params: its pre-trained parameters.
        batch: examples to learn; those with mask 0 are left out.
        plan: `Stage`s; each starts where the last one ended.
        key: for minibatches, and partitions that draw their start (`lora`).
        loss: of one example. batch_size: examples a step, drawn anew at each without
            replacement from those that count; None = all.

    Returns: parameters like `params`; what no stage moves is what it was, bit for bit.
        They are NaN for labels out of range or an empty mask, and a RuntimeWarning
        outside jit says when they are not finite.
    Raises: ValueError for an empty plan, parameters that are not the model's, a batch
        that does not fit, a missing key, a batch size above the number of examples.

    >>> import jax, optax, jaxmeta as jm
    >>> model = jm.models.mlp(2, 3)
    >>> task = jm.Batch(jax.numpy.eye(2), jax.numpy.array([0, 2]))
    >>> plan = (Stage(jm.transfer.linear_probe(), optax.sgd(1.0), steps=50),)
    >>> tuned = fine_tune(model, model.init(jax.random.key(0)), task, plan)
    >>> model.apply(tuned, task.x).argmax(axis=1)
    Array([0, 2], dtype=int32)
    """
    checks.check_models(model=model)
    checks.check_functions(loss=loss)
    plan = _checked(plan)
    theta = _fitting(model, params)
    batch = _entered(model, theta, batch, loss)
    if batch_size is not None:
        checks.check_sizes(1, examples(batch), batch_size=batch_size)
    if key is not None or batch_size is not None:
        checks.check_key(key)
    for i, stage in enumerate(plan):
        key_stage = (
            None if key is None else jax.random.fold_in(jax.random.clone(key), i)
        )
        theta = _run(
            theta,
            batch,
            key_stage,
            model=model,
            stage=stage,
            loss=loss,
            size=batch_size,
        )
    _warn_if_not_finite(theta)
    return theta


def lp_ft(
    probe: optax.GradientTransformation,
    full: optax.GradientTransformation,
    *,
    steps: tuple[int, int],
    head: str = "head",
) -> tuple[Stage, Stage]:
    """A plan: the head alone first, then everything.

    Kumar, Raghunathan, Jones, Ma, Liang. Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution. ICLR 2022, arXiv 2202.10054, section 3.4. A new head
    is wrong, and its errors turn the features of what is far from the training examples
    as well; at a head that fits, the gradient of the features is 0.

    Args: probe, full: optimisers of the two stages; steps: of each; head: name of the
        last layer.
    Returns: a plan for `fine_tune`.

    >>> import optax
    >>> plan = lp_ft(optax.adam(1e-2), optax.adam(1e-4), steps=(100, 20))
    >>> [stage.steps for stage in plan]
    [100, 20]
    """
    checks.check_optimizer(probe, "probe")
    checks.check_optimizer(full, "full")
    checks.check_shapes(2, steps=steps)
    return (
        Stage(partitions.linear_probe(head), probe, steps[0]),
        Stage(partitions.full(), full, steps[1]),
    )


@partial(jax.jit, static_argnames=("model", "stage", "loss", "size"))
def _run(theta, batch, key, *, model, stage, loss, size):
    """One stage: the parameters after it."""
    partition, optimizer, steps = stage
    key_start, key_steps = (None, None) if key is None else jax.random.split(key)
    start = partition.init(theta, key_start)

    def outputs(fixed, moved):
        theta, x, mask = fixed
        return forward(model, partition.merge(theta, moved), x, mask)

    def minibatch_loss(moved, theta, given):
        batch, key = given  # the key of a descent's batch is another one at each step
        seen = _minibatch(batch, key, size)
        return losses.mean_loss(loss, outputs((theta, seen.x, seen.mask), moved), seen)

    def batch_loss(moved, features, given):
        return losses.mean_loss(loss, rest(features, moved), given[0])

    objective, context = minibatch_loss, theta
    if size is None:  # what is fixed is computed once for all steps
        rest, context = compute_once(outputs, (theta, batch.x, batch.mask), start)
        objective = batch_loss
    descend = inner.descent(
        "fine_tune",
        objective,
        steps=steps,
        adjoint=MixedMode(),
        rule=lambda _: optimizer,
    )
    moved = descend(start, context, (batch, key_steps))
    sound = soundness(batch, 0 if losses.are_labels(batch.y) else None)
    spoil = lambda a: a * sound.astype(a.dtype)  # NaN of what can't be learnt from
    return partition.merge(theta, jax.tree.map(spoil, moved))


def _minibatch(batch: Batch, key: jax.Array, size: int) -> Batch:
    """`size` examples at random, those that count before padding."""
    order = jax.random.uniform(key, (examples(batch),))
    if batch.mask is not None:
        order = jnp.where(batch.mask > 0, order, -1.0)
    rows = jax.lax.top_k(order, size)[1]
    return jax.tree.map(lambda a: a[rows], batch)


def _entered(model: Model, theta: PyTree, batch: Batch, loss: Callable) -> Batch:
    """The batch as each learner takes it: numbers checked where they can be seen."""
    checks.check_kind(batch, Batch, "batch")
    array = lambda a: jnp.asarray(checks.native(a))
    batch = Batch(entered(batch.x, "training inputs"), *jax.tree.map(array, batch[1:]))
    checks.check_batch(batch, "training")
    batch = blank_padding(batch)
    if losses.are_labels(batch.y):
        if losses.outputs_of(loss) == "values":
            return batch._replace(y=batch.y.astype(jnp.result_type(float)))
        outputs = jax.eval_shape(partial(forward, model), theta, batch.x, batch.mask)
        checks.check_labels(batch, losses.classes_of(outputs), "training")
    return batch


def _fitting(model: Model, params: PyTree) -> PyTree:
    """The parameters as arrays. Raises: ValueError if they are not the model's."""
    params = jax.tree.map(jnp.asarray, params)
    wanted = jax.eval_shape(model.init, _any_key())
    parameters.check_fits("params", params, wanted)
    return params


def _any_key():
    return jax.eval_shape(lambda: jax.random.key(0))


def check_partition(partition) -> None:
    """Raise ValueError unless it is like a `Partition`, made by a call."""
    what = "a partition, e.g. jm.transfer.lora(4)"
    checks.check_methods("partition", partition, ("init", "merge"), what)


def _checked(plan) -> tuple[Stage, ...]:
    """The plan. Raises: ValueError unless it is a tuple of stages."""
    stages = (plan,) if isinstance(plan, Stage) else plan
    if not isinstance(stages, (tuple, list)) or not stages:
        raise ValueError(
            "plan: expected a tuple of jm.transfer.Stage(partition, optimizer, steps), got "
            f"{checks.said(plan)}"
        )
    for stage in stages:
        checks.check_kind(stage, Stage, "plan")
        check_partition(stage.partition)
        checks.check_optimizer(stage.optimizer)
        checks.check_sizes(steps=stage.steps)
    return tuple(stages)


def _warn_if_not_finite(theta: PyTree) -> None:
    leaves = jax.tree.leaves(theta)
    if any(isinstance(a, jax.core.Tracer) for a in leaves):
        return
    if not all(bool(jnp.all(jnp.isfinite(a))) for a in leaves):
        warnings.warn(
            "fine_tune: the parameters it ends with are not finite; lower the step size, "
            "or look for bad values in the batch and the parameters",
            RuntimeWarning,
            stacklevel=3,
        )
