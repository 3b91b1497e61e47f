"""What several learners share: objectives, inner rules, and checks of arguments."""

from collections.abc import Callable
from dataclasses import dataclass
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
    Model,
    PredictFn,
    Task,
    examples,
    forward,
    of_examples,
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
    checks.check_functions(loss=loss)

    def judge(adapted, task):
        query = task.query
        outputs = predict(adapted, query.x, query.mask)
        value = losses.mean_loss(loss, outputs, query)
        return value, {"loss": value, **losses.score(outputs, query)}

    return judge


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
    checks.check_models(model=model)

    def predict(adapted, inputs, mask=None):
        return forward(model, adapted, inputs, mask)

    return predict


def support_objective(model: Model, loss: losses.Loss) -> Objective:
    """(theta, context, batch) -> the mean loss of a model, all of whose parameters are
    adapted."""
    checks.check_models(model=model)
    checks.check_functions(loss=loss)

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
    model: Model, params: PyTree, support: Batch, ways: int
) -> tuple[jax.Array, jax.Array]:
    """A classification support set, seen by an encoder.

    Returns: z [examples, ...], features, 0 for padding; belongs [examples, ways], one-hot
        labels, rows of 0 for padding and for unlabelled examples.
    """
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
    checks.check_functions(rule=rule)
    if callable(inner_lr):
        return lambda _: rule(inner_lr), ()
    return rule, inner_lr


def precise(a: jax.Array) -> jax.Array:
    """At least single precision, which is what linear algebra is there for."""
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


def check_layer(model: Model, name: str, argument: str) -> None:
    """Raise ValueError unless the model's parameters are a dict with that layer."""
    checks.check_models(model=model)
    checks.check_names(**{argument: name})
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    names = sorted(layers) if isinstance(layers, dict) else []
    if name not in names:
        raise ValueError(
            f"{argument}: the model has no layer {name!r} to adapt; expected one of "
            f"{', '.join(map(str, names)) or 'a dict, it has no named layers'}"
        )


def check_descent(inner_lr, inner_steps, least: int = 0) -> None:
    """Raise ValueError unless the arguments of an inner loop make sense.

    inner_lr: a number, or a schedule (a function of the inner step).
    """
    if callable(inner_lr):
        _check_schedule(inner_lr)
    else:
        checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(least, inner_steps=inner_steps)


def _check_schedule(inner_lr: Callable) -> None:
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


def check_penalty(penalty) -> None:
    """Raise ValueError unless the strength of a regulariser is positive."""
    checks.check_positive(penalty=penalty)


def check_ways(ways) -> None:
    """Raise ValueError unless there are at least two classes to tell apart."""
    checks.check_sizes(2, ways=ways)


def sized(model: Model, features: int) -> Model:
    """The model, which says so if it does not make `features` numbers of an example.

    Raises: ValueError for no model, or features below 1.
    """
    checks.check_sizes(features=features)
    return flat(model, features)


def flat(model: Model, features: int | None = None) -> Model:
    """The model, which says so if its outputs are not [examples, features].

    features: None = as many as it makes. Raises: ValueError for no model.
    """
    checks.check_models(model=model)
    noisy = model.noisy and _Sized(model.noisy, features)
    return model._replace(apply=_Sized(model.apply, features), noisy=noisy)


@dataclass(frozen=True)
class _Sized:
    """A forward pass, checked; equal for equal networks, so compiled once for them."""

    forward: Callable[..., Any]
    features: int | None

    def __call__(self, params, x, *args, **kwargs):
        z = self.forward(params, x, *args, **kwargs)
        got = z.shape[1:]
        if len(got) != 1:
            raise ValueError(
                f"model: expected outputs [examples, features], got shape {z.shape}; this "
                "learner takes an encoder with flat outputs, e.g. conv4(None)"
            )
        if self.features not in (None, *got):
            raise ValueError(
                f"features: expected a model that makes {self.features} numbers of an "
                f"example, got {got[0]}; give the learner features={got[0]}"
            )
        return z


def one_hot(labels, ways: int, mask, dtype):
    """[examples] integers -> [examples, ways]; the rows of masked examples are 0."""
    rows = (labels[:, None] == jnp.arange(ways)[None, :]).astype(dtype)
    return rows if mask is None else jnp.where(mask[:, None] > 0, rows, 0)


def together(a: Batch, b: Batch) -> Batch:
    """One batch of the examples of two."""
    join = lambda u, v: jnp.concatenate([u, v])
    whole = lambda batch: (
        jnp.ones(examples(batch)) if batch.mask is None else batch.mask
    )
    mask = None
    if a.mask is not None or b.mask is not None:
        mask = join(whole(a), whole(b))
    return Batch(of_examples(join, a.x, b.x), join(a.y, b.y), mask)
