"""What several learners share: objectives, inner rules, and checks of arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.inner import Objective, Rule
from jaxmeta.types import (
    AdaptFn,
    Batch,
    LossFn,
    MetaLearner,
    Model,
    PredictFn,
    Task,
    blank_padding,
    forward,
)

PyTree = Any


def query_loss(adapt: AdaptFn, predict: PredictFn, loss: losses.Loss) -> LossFn:
    """The outer objective of most learners: adapt to support, be judged on query.

        L(params) = mean over query of loss(predict(adapt(params, support), x), y)

    Args: the two functions of the learner, and the loss of one example.
    Returns: (params, task, key=None) -> (loss [], metrics).
    """

    judge = judged(predict, loss)

    def task_loss(params, task: Task, key=None):
        return judge(adapt(params, task.support, key), task)

    return task_loss


def judged(predict: PredictFn, loss: losses.Loss) -> Callable[[PyTree, Task], tuple]:
    """(adapted, task) -> (query loss [], metrics), of what has already been adapted."""

    def judge(adapted, task):
        checks.check_batch(task.query, "query")
        query = blank_padding(task.query)
        outputs = predict(adapted, query.x, query.mask)
        if is_classification(query):
            checks.check_labels(query, outputs.shape[-1], "query")
        value = losses.mean_loss(loss, outputs, query)
        return value, {"loss": value, **losses.score(outputs, query)}

    return judge


def with_noise(make: Callable[[Model], MetaLearner], model: Model) -> MetaLearner:
    """A learner that is trained with its network's noise (DropBlock), and used without.

    Args: make: model -> learner, e.g. `lambda m: jm.metaoptnet(m, ways=5)`; model: one
        with a `noisy` forward pass, e.g. `resnet12()`.
    Returns: `make(model)` whose `scheduled_loss`, which `fit` and `make_step` descend,
        draws new noise from the key of each task.
    Raises: ValueError for a model without noise.
    """
    if model.noisy is None:
        raise ValueError(
            "with_noise: the model has no noisy forward pass; expected one like resnet12()"
        )
    noisy, plain = model.noisy, make(model)

    def loss(params, task, key, step):
        if key is None and plain.scheduled_loss is not None:
            return plain.scheduled_loss(params, task, None, step)
        if key is None:
            return plain.loss(params, task)
        key_noise, key = jax.random.split(key)

        def apply(params, x, mask=None):  # batches of another size: other noise
            now = jax.random.fold_in(jax.random.clone(key_noise), len(x))
            return noisy(params, x, mask, now, step)

        learner = make(Model(model.init, apply, uses_mask=True))
        if learner.scheduled_loss is not None:
            return learner.scheduled_loss(params, task, key, step)
        return learner.loss(params, task, key)

    return plain._replace(scheduled_loss=loss)


def displacement_loss(
    adapt: AdaptFn, predict: PredictFn, loss: losses.Loss, factor: float = 1.0
) -> LossFn:
    """The outer objective of learners that move towards what they adapted to.

    Its value is the query loss, its derivative factor (params - adapted); `adapted` is a
    tree like `params`.
    """
    judge = judged(predict, loss)

    def task_loss(params, task: Task, key=None):
        adapted = jax.lax.stop_gradient(adapt(params, task.support, key))
        value, metrics = judge(adapted, task)
        move = jax.tree.map(lambda p, w: factor * (p - w), params, adapted)
        return with_gradient(value, params, move), metrics

    return task_loss


def with_gradient(value: jax.Array, params: PyTree, gradient: PyTree) -> jax.Array:
    """`value`, whose derivative in `params` is `gradient`, whatever made them."""
    value, gradient = jax.lax.stop_gradient((value, gradient))
    along = jnp.asarray(optax.tree.vdot(params, gradient))
    return value + (along - jax.lax.stop_gradient(along))  # the bracket is exactly 0


def predictor(model: Model) -> PredictFn:
    """predict of a learner whose `adapted` is a tree of the model's parameters."""

    def predict(adapted, inputs, mask=None):
        return forward(model, adapted, inputs, mask)

    return predict


def support_objective(model: Model, loss: losses.Loss) -> Objective:
    """(theta, context, batch) -> the mean loss of a model, all of whose parameters are
    adapted."""

    def objective(theta, context, batch):
        del context
        return losses.mean_loss(loss, forward(model, theta, batch.x, batch.mask), batch)

    return objective


def proximal_objective(model: Model, loss: losses.Loss, penalty: float) -> Objective:
    """(w, theta, batch) -> mean loss + penalty / 2 |w - theta|^2."""
    fit = support_objective(model, loss)

    def objective(w, theta, batch):
        away = jax.tree.map(lambda w, t: jnp.sum(jnp.square(w - t)), w, theta)
        return fit(w, (), batch) + penalty / 2 * sum(jax.tree.leaves(away))

    return objective


class Seen(NamedTuple):
    """An adapted learner that keeps its support set: features and labels."""

    params: PyTree
    z: jax.Array  # [examples, ...] features
    belongs: jax.Array  # [examples, ways] one-hot labels, rows of 0 for padding


def mean_of(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over the examples that count: [n, features] -> [features]."""
    if mask is None:
        return jnp.mean(values, axis=0)
    counts = mask > 0
    total = jnp.sum(jnp.where(counts[:, None], values, 0), axis=0)
    return total / jnp.maximum(jnp.sum(counts), 1).astype(total.dtype)


def weights_of(mask: jax.Array | None, like: jax.Array) -> jax.Array:
    """[n] of 1 where an example counts and 0 where it is padding."""
    if mask is None:
        return jnp.ones(len(like), like.dtype)
    return (mask > 0).astype(like.dtype)


def embed_support(
    model: Model, params: PyTree, support: Batch, ways: int, *, unlabelled: bool = False
) -> tuple[jax.Array, jax.Array]:
    """A classification support set, checked and seen by an encoder.

    Returns: z [examples, ...], features, 0 for padding; belongs [examples, ways], one-hot
        labels, rows of 0 for padding and for unlabelled examples.
    Raises: ValueError for wrong shapes or labels; unlabelled as in `check_labels`.
    """
    checks.check_batch(support)
    checks.check_labels(support, ways, unlabelled=unlabelled)
    support = blank_padding(support)
    z = forward(model, params, support.x, support.mask)
    if support.mask is not None:
        keep = jnp.reshape(support.mask > 0, (-1,) + (1,) * (z.ndim - 1))
        z = jnp.where(keep, z, 0)
    return z, one_hot(support.y, ways, support.mask, z.dtype)


def class_means(z: jax.Array, belongs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of each class: z [n, ...], belongs [n, ways] -> [ways, ...], shots [ways].

    `belongs` may be weights between 0 and 1; a class without any has mean 0.
    """
    shots = jnp.sum(belongs, axis=0)
    total = jnp.tensordot(belongs, z, axes=(0, 0))
    least = jnp.where(shots > 0, shots, 1)
    return total / jnp.reshape(least, (-1,) + (1,) * (z.ndim - 1)), shots


def shuffled(key: jax.Array | None, rows: PyTree) -> PyTree:
    """Arrays [examples, ...] in one random order; as they are without a key."""
    if key is None:
        return rows
    order = jax.random.permutation(key, len(jax.tree.leaves(rows)[0]))
    return jax.tree.map(lambda a: a[order], rows)


def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """[n, features], [m, features] -> [n, m]; differences first, so that far-away
    clusters lose no digits to cancellation."""
    return jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1)


def unit(z: jax.Array) -> jax.Array:
    """Vectors [..., features] of length 1; a zero vector stays zero, safely."""
    return z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True) + 1e-12)


def cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine similarities: [n, features], [m, features] -> [n, m]."""
    return unit(a) @ unit(b).T


def known(logits: jax.Array, shots: jax.Array) -> jax.Array:
    """Logits [n, ways], -inf for a class without support examples (shots [ways] 0)."""
    return jnp.where(shots[None, :] > 0, logits, -jnp.inf)


def fixed_rule(
    rule: Callable[..., optax.GradientTransformation],
    inner_lr: float | optax.Schedule,
) -> tuple[Rule, PyTree]:
    """An inner rule and its hyper-parameters, as `inner.descend` takes them.

    A schedule is structure; a number is an argument, so that it can be vmapped over.
    """
    if callable(inner_lr):
        return lambda _: rule(inner_lr), ()
    return rule, inner_lr


def is_classification(batch: Batch) -> bool:
    """Integer targets are classes; anything else is regression."""
    return bool(jnp.issubdtype(batch.y.dtype, jnp.integer))


def ready(model: Model, params, support: Batch) -> Batch:
    """The support set with blank padding, once it is found to fit the model.

    Labels are looked at only where they are concrete, that is outside jit.
    Raises: ValueError for wrong shapes or labels out of range.
    """
    checks.check_batch(support)
    if is_classification(support):
        see = lambda params, x, mask: forward(model, params, x, mask)
        outputs = jax.eval_shape(see, params, support.x, support.mask)
        checks.check_labels(support, outputs.shape[-1])
    return blank_padding(support)


def check_layer(model: Model, name: str, argument: str) -> None:
    """Raise ValueError unless the model's parameters are a dict with that layer."""
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    names = sorted(layers) if isinstance(layers, dict) else []
    if name not in names:
        raise ValueError(
            f"{argument}: the model has no layer {name!r} to adapt; it has "
            f"{', '.join(map(str, names)) or 'no named layers (expected a dict)'}"
        )


def check_descent(inner_lr, inner_steps, least: int = 0) -> None:
    """Raise ValueError unless the arguments of an inner loop make sense."""
    if not callable(inner_lr) and isinstance(inner_lr, (int, float)) and inner_lr < 0:
        raise ValueError(f"inner_lr: expected a step size >= 0, got {inner_lr}")
    if not isinstance(inner_steps, int) or inner_steps < least:
        raise ValueError(
            f"inner_steps: expected a whole number >= {least}, got {inner_steps!r}"
        )


def check_penalty(penalty) -> None:
    """Raise ValueError unless the strength of a regulariser is positive."""
    if not penalty > 0:
        raise ValueError(f"penalty: expected lambda > 0, got {penalty}")


def check_ways(ways) -> None:
    """Raise ValueError unless there are at least two classes to tell apart."""
    if not isinstance(ways, int) or ways < 2:
        raise ValueError(f"ways: expected a whole number >= 2, got {ways!r}")


def one_hot(labels, ways: int, mask, dtype):
    """[examples] integers -> [examples, ways]; the rows of masked examples are 0."""
    rows = (labels[:, None] == jnp.arange(ways)[None, :]).astype(dtype)
    return rows if mask is None else jnp.where(mask[:, None] > 0, rows, 0)


def together(a: Batch, b: Batch) -> Batch:
    """One batch of the examples of two."""
    join = lambda u, v: jnp.concatenate([u, v])
    whole = lambda batch: (
        jnp.ones(len(batch.x), batch.x.dtype) if batch.mask is None else batch.mask
    )
    mask = None
    if a.mask is not None or b.mask is not None:
        mask = join(whole(a), whole(b))
    return Batch(join(a.x, b.x), join(a.y, b.y), mask)
