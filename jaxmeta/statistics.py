"""Whose statistics normalise an example: those of the support set, or of fixed examples.

A network that leaves masked examples out of its statistics still normalises them, by the
statistics of the others. So on [reference; x] with all of x masked, layer by layer, x is
normalised by the reference and by nothing else: whatever the network, and exactly. One
query at a time then gives what a batch of queries gives.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import blank_padding, examples, of_examples
from jaxmeta.boundary import entered
from jaxmeta.types import Batch, MetaLearner, Model, PyTree, Tagged, Task


class Reference(NamedTuple):
    """Examples whose statistics normalise."""

    x: PyTree  # [m, ...]
    mask: jax.Array  # [m], 1 = counts


class Referred(NamedTuple):
    """An adapted learner that keeps its support set."""

    adapted: PyTree
    support: Reference


def normalised_by(model: Model, x: PyTree, mask: jax.Array | None = None) -> Model:
    """A model that normalises by fixed examples, whatever it is asked with.

    For networks without running statistics (`conv4`, `resnet12`) it is what takes their
    place: the statistics are those of the reference under the parameters of the moment,
    so they follow an inner loop. Each pass runs the reference along.

    Args:
        model: one that uses masks. x: reference inputs [m, ...], e.g. some of the
            training set. mask: [m], as in `Batch`.

    Returns: a `Model`. Raises: ValueError for a model that does not use masks.
    """
    _check_masks("normalised_by", model)
    reference = _reference(Batch(x, jnp.zeros(len(jax.tree.leaves(x)[0])), mask))

    def apply(params, x, mask=None):
        del mask
        return _beside(lambda *a: model.apply(params, *a), reference, x)

    def noisy(params, x, mask, key, step):
        assert model.noisy is not None
        run = model.noisy
        return _beside(lambda *a: run(params, *a, key, step), reference, x)

    return Model(model.init, apply, True, noisy if model.noisy else None)


def with_support_statistics(
    make: Callable[[Model], MetaLearner], model: Model
) -> MetaLearner:
    """A learner whose queries are normalised by the statistics of the support set.

    Args:
        make: model -> learner, e.g. `lambda m: jm.maml(m, inner_lr=0.4)`; one that hands
            its inputs to the model as they are.
        model: one that uses masks, e.g. `conv4()` or a Flax network with batch norm. It
            must give masked examples what it gives others (layers of jaxmeta and batch
            norm of Flax do).

    Returns: `make(model)` in which no query depends on another; `adapted` keeps the
        support set, and a prediction runs it along.
    Raises: ValueError for a model that does not use masks.

    >>> import jax, jaxmeta as jm
    >>> network = jm.models.conv4(None, input_shape=(4, 4, 1), widths=2, strided=True)
    >>> learner = with_support_statistics(lambda m: jm.protonet(m, ways=2), network)
    >>> x = jax.random.normal(jax.random.key(0), (4, 4, 4, 1))
    >>> support = jm.Batch(x, jax.numpy.array([0, 0, 1, 1]))
    >>> adapted = learner.adapt(learner.init(jax.random.key(1)), support)
    >>> both, one = learner.predict(adapted, x[:2]), learner.predict(adapted, x[:1])
    >>> bool(jax.numpy.allclose(both[:1], one, atol=1e-5))
    True
    """
    checks.check_functions(make=make)
    _check_masks("with_support_statistics", model)

    def seen(run, x, mask):
        if isinstance(x, Tagged) and isinstance(x.tag, Reference):
            return _beside(run, x.tag, x.x)
        return run(x, mask)

    def apply(params, x, mask=None):
        return seen(lambda x, mask: model.apply(params, x, mask), x, mask)

    def noisy(params, x, mask, key, step):
        assert model.noisy is not None
        given = model.noisy
        return seen(lambda x, mask: given(params, x, mask, key, step), x, mask)

    learner = make(Model(model.init, apply, True, noisy if model.noisy else None))

    def adapt(params, support, key=None):
        return Referred(learner.adapt(params, support, key), _reference(support))

    def predict(adapted, inputs, mask=None):
        return learner.predict(adapted.adapted, Tagged(inputs, adapted.support), mask)

    def referred(task):
        tagged = Tagged(task.query.x, _reference(task.support))
        return Task(task.support, task.query._replace(x=tagged))

    def loss(params, task, key=None):
        return learner.loss(params, referred(task), key)

    def objective(params, task, key, step):
        assert learner.objective is not None
        return learner.objective(params, referred(task), key, step)

    return learner._replace(
        adapt=adapt,
        predict=predict,
        loss=loss,
        objective=learner.objective and objective,
    )


def _beside(run: Callable[..., Any], reference: Reference, x: PyTree) -> Any:
    """run(x, mask) of x, normalised by the reference."""
    both = of_examples(lambda a, b: jnp.concatenate([a, b]), reference.x, x)
    m, n = len(reference.mask), len(jax.tree.leaves(x)[0])
    mask = jnp.concatenate([reference.mask, jnp.zeros(n, reference.mask.dtype)])

    def rows(y):
        if y.shape[:1] != (m + n,):
            raise ValueError(
                "statistics: expected a model with one output an example, got an output "
                f"of shape {y.shape} for {m + n} examples"
            )
        return y[m:]

    return jax.tree.map(rows, run(both, mask))


def _reference(support: Batch) -> Reference:
    support = blank_padding(support._replace(x=entered(support.x)))
    n = examples(support)
    return Reference(support.x, jnp.ones(n) if support.mask is None else support.mask)


def _check_masks(what: str, model: Model) -> None:
    checks.check_models(model=model)
    if not model.uses_mask:
        raise ValueError(
            f"{what}: the model takes no mask, so nothing can be left out of its "
            "statistics; expected one of jm.models, from_linen, from_nnx, or a Model with "
            "uses_mask=True"
        )
