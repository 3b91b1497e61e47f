"""Losses of one example, and their means over the examples that count.

A loss is `loss(outputs, targets) -> [examples, ...]`, as in optax; any function of
that shape can be given to a learner. The means know about masks.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.batches import blank_padding
from jaxmeta.types import Batch, Metrics

Loss = Callable[[Any, Any], jax.Array]


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Softmax cross-entropy, in nats.

    Args: outputs [examples, ways] logits; targets [examples] integers in 0..ways-1.
    Returns: [examples]. A label out of range gives NaN, and so does its derivative.
    Raises: ValueError for one logit, whose softmax is always 1, or targets that are no
        integers.

    >>> import jax.numpy as jnp
    >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))[0])  # log 4
    1.3862943649291992
    >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.array([-1]))[0])
    nan
    """
    _check_arrays("cross_entropy", outputs=outputs)
    if outputs.shape[-1:] == (1,):
        raise ValueError(
            "cross_entropy: outputs have one logit, expected one a class (at least 2); "
            "for one logit and two classes take a sigmoid loss, e.g. "
            "lambda o, y: optax.sigmoid_binary_cross_entropy(o[:, 0], y)"
        )
    if not are_labels(targets):
        raise ValueError(
            "cross_entropy: expected targets that are integers in 0..ways-1, got "
            f"{checks.said(targets)}; for regression give loss=jm.losses.mse"
        )
    if not outputs.shape or outputs.shape[:-1] != targets.shape:
        raise ValueError(
            f"cross_entropy: outputs have shape {outputs.shape}, targets {targets.shape}; "
            "expected [examples, ways] and [examples]"
        )
    each = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    within = (targets >= 0) & (targets < outputs.shape[-1])
    return each * jnp.where(within, 1.0, jnp.nan).astype(each.dtype)


def binary_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy of each label by itself, in nats: of examples with several
    labels at once (`jm.tasks.multi_label`).

    Args: outputs [examples, labels] logits; targets [examples, labels], bool or 0..1.
    Returns: [examples, labels]. Raises: ValueError if the shapes differ.

    >>> import jax.numpy as jnp
    >>> each = binary_cross_entropy(jnp.zeros((1, 2)), jnp.array([[True, False]]))
    >>> each.tolist()  # log 2
    [[0.6931471824645996, 0.6931471824645996]]
    """
    _check_arrays("binary_cross_entropy", outputs=outputs, targets=targets)
    if outputs.shape != targets.shape:
        raise ValueError(
            f"binary_cross_entropy: outputs have shape {outputs.shape}, targets "
            f"{targets.shape}; expected [examples, labels] for both"
        )
    return optax.sigmoid_binary_cross_entropy(outputs, targets)


def mse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error, in squared units of the targets (no factor 1/2).

    Args: outputs and targets [examples, dims], of one shape.
    Returns: [examples, dims]; the mean over both is the mean squared error.
    Raises: ValueError if the shapes differ: (n,) against (n, 1) would broadcast to n x n.
    """
    _check_arrays("mse", outputs=outputs, targets=targets)
    if outputs.shape != targets.shape:
        raise ValueError(
            f"mse: outputs have shape {outputs.shape}, targets {targets.shape}; expected "
            "one shape, e.g. [examples, 1] for both"
        )
    return jnp.square(outputs - targets)


def _check_arrays(name: str, **given) -> None:
    """Raise ValueError unless they are arrays."""
    if not all(hasattr(a, "shape") for a in given.values()):
        kinds = [f"{what} of type {type(a).__name__}" for what, a in given.items()]
        raise ValueError(
            f"{name}: expected arrays, got {' and '.join(kinds)}; write a loss of your "
            "own for trees"
        )


def mean(values: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Mean over all entries of the examples whose mask is not 0.

    Args: values [examples, ...]; mask [examples] or None.
    Returns: []; NaN, and so is its derivative, if no example counts.
    """
    if mask is None or values.ndim == 0:
        if values.ndim == 0 and mask is not None:
            raise ValueError(
                "loss: with a mask the loss must return one value an example, got a "
                "scalar; leave the mean to the learner"
            )
        return jnp.mean(values)
    if mask.shape != values.shape[:1]:
        raise ValueError(
            f"mask: expected one entry an example, shape {values.shape[:1]}, got "
            f"{mask.shape}"
        )
    per_example = jnp.mean(jnp.reshape(values, (values.shape[0], -1)), axis=1)
    counts = mask > 0
    some = jnp.where(jnp.any(counts), 1.0, jnp.nan).astype(per_example.dtype)
    total = jnp.sum(jnp.where(counts, per_example * some, 0))
    return total * some / jnp.maximum(jnp.sum(counts), 1).astype(total.dtype)


def mean_loss(loss: Loss, outputs, batch: Batch) -> jax.Array:
    """The mean loss of a batch, padding left out.

    Returns: []; NaN, and so is its derivative, for a class label out of range, whatever
        the loss makes of it.
    Raises: ValueError for a loss that does not give a value an example.
    """
    y = blank_padding(batch).y
    each = loss(outputs, y)
    _check_each(each, outputs, y)
    value = mean(each, batch.mask)
    if not are_labels(batch.y) or not hasattr(outputs, "shape"):
        return value
    within = (y >= 0) & (y < classes_of(outputs))
    return value * jnp.where(jnp.all(within), 1.0, jnp.nan).astype(value.dtype)


def _check_each(each, outputs, y) -> None:
    """Raise ValueError unless a loss gave a value for each example (or one for all)."""
    if not hasattr(each, "shape"):
        raise ValueError(
            "loss: expected a function (outputs, targets) -> losses [examples, ...], got "
            f"one that gives {checks.said(each)}"
        )
    if not hasattr(outputs, "shape") or not hasattr(y, "shape"):
        return
    if not any(each.shape == a.shape[: each.ndim] for a in (y, outputs)):
        raise ValueError(
            f"loss: outputs of shape {outputs.shape} and targets of shape {y.shape} gave "
            f"losses of shape {each.shape}; expected one an example, [examples, ...], so "
            "bring both to one shape in the loss (one logit: outputs[:, 0])"
        )


def score(outputs: jax.Array, batch: Batch) -> Metrics:
    """What a person reads: accuracy in 0..1 for integer targets [examples], that of each
    label and F1 over all of them for bool ones, else nothing more.

    One logit is that of class 1 of two. A prediction that is NaN is wrong; of a label out
    of range nothing is right or wrong, and the accuracy is NaN.
    """
    if _are_flags(batch.y):
        return _score_of_several(outputs, batch)
    if not are_labels(batch.y) or batch.y.ndim != 1:
        return {}
    one = outputs.ndim == 1 or outputs.shape[-1] == 1
    logits = jnp.reshape(outputs, (len(outputs), -1))
    found = logits[:, 0] > 0 if one else jnp.argmax(logits, axis=-1)
    correct = (found == batch.y) & ~jnp.any(jnp.isnan(logits), axis=-1)
    within = (batch.y >= 0) & (batch.y < classes_of(outputs))
    each = jnp.where(within, correct, jnp.nan).astype(outputs.dtype)
    return {"accuracy": mean(each, batch.mask)}


def _are_flags(targets: Any) -> bool:
    dtype = getattr(targets, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.bool_))


def _score_of_several(outputs: jax.Array, batch: Batch) -> Metrics:
    """Of labels that go together; F1 is 1 where none is there and none is found."""
    found = jnp.where(jnp.isnan(outputs), ~batch.y, outputs > 0)
    counts = True if batch.mask is None else batch.mask[:, None] > 0
    total = lambda a: jnp.sum(a & counts).astype(outputs.dtype)
    wrong, both = total(found != batch.y), 2 * total(found & batch.y)
    f1 = jnp.where(wrong + both > 0, both / jnp.maximum(wrong + both, 1), 1.0)
    right = (found == batch.y).astype(outputs.dtype)
    return {"accuracy": mean(right, batch.mask), "f1": f1}


def are_labels(targets: Any) -> bool:
    """Integer targets are classes; anything else is regression."""
    dtype = getattr(targets, "dtype", None)  # trees of targets are regression
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.integer))


def classes_of(outputs: jax.Array) -> int:
    """How many classes outputs [examples, ways] are about; one logit is about two."""
    return 2 if outputs.ndim == 1 else max(2, outputs.shape[-1])


def classification(loss: Loss) -> Loss:
    """Mark a loss of your own: its outputs are logits of classes, its targets labels.

    `bmaml` and `bootstrapped` have to know; returns the loss itself.

    >>> import optax
    >>> @classification
    ... def smoothed(outputs, targets):
    ...     wanted = optax.smooth_labels(jax.nn.one_hot(targets, outputs.shape[-1]), 0.1)
    ...     return optax.softmax_cross_entropy(outputs, wanted)
    >>> outputs_of(smoothed)
    'logits'
    """
    return _marked(loss, "logits")


def regression(loss: Loss) -> Loss:
    """Mark a loss of your own: its outputs are values like the targets."""
    return _marked(loss, "values")


def outputs_of(loss: Loss, learner: str | None = None) -> str | None:
    """What a loss takes its outputs for: "logits", "values", or None if it does not say.

    Partial applications and wrappers (functools) say what is inside; so do the losses of
    optax for integer labels and for values.

    Args: loss; learner: the name of one that has to know.
    Raises: ValueError if it has to know and the loss does not say.
    """
    inside = loss
    while inside is not None:
        if hasattr(inside, _MARK):
            return getattr(inside, _MARK)
        if _is_optax(inside) and inside.__name__ in _OPTAX:
            return _OPTAX[inside.__name__]
        inside = getattr(inside, "func", None) or getattr(inside, "__wrapped__", None)
    if learner is not None:
        raise ValueError(
            f"loss: {learner} has to know what {getattr(loss, '__name__', loss)!r} takes "
            "outputs for; say it with jm.losses.classification(loss) for logits of "
            "classes, or jm.losses.regression(loss)"
        )
    return None


_MARK = "jaxmeta_outputs"
_OPTAX = {
    "softmax_cross_entropy_with_integer_labels": "logits",
    "squared_error": "values",
    "l2_loss": "values",
    "huber_loss": "values",
    "log_cosh": "values",
}


def _is_optax(loss) -> bool:
    module = getattr(loss, "__module__", None) or ""
    return module.split(".")[0] == "optax" and hasattr(loss, "__name__")


def _marked(loss, said):
    try:
        setattr(loss, _MARK, said)
    except AttributeError:  # a method: mark what calls it
        loss = functools.partial(loss)
        setattr(loss, _MARK, said)
    return loss


classification(cross_entropy)
regression(mse)
