"""A descent along a stream: a step or more on each example, one after the other.

    w_{k+1} = w_k - alpha grad l(w_k; x_k, y_k),  k = 1, ..., n

It is a `Descent` like any other, whose objective is another at each step, so every adjoint
that can differentiate through such steps can be asked for. An example that is padding has
a gradient of 0, and a step against it leaves w where it is.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import examples, of_examples, untagged
from jaxmeta.inner import Descent, Objective
from jaxmeta.learners.features import weights_of
from jaxmeta.types import Batch, Model, PyTree, Tagged

Outputs = Callable[[PyTree, PyTree, PyTree], jax.Array]


def along(outputs: Outputs, loss: losses.Loss) -> Objective:
    """(w, context, (_, (x, y, counts))) -> the loss of one example, 0 of padding.

    outputs: (w, context, x [1, ...]) -> [1, ...].
    """
    checks.check_functions(loss=loss)

    def objective(w, context, batch):
        x, y, counts = batch[1]
        x, y = of_examples(lambda a: a[None], x), jax.tree.map(lambda a: a[None], y)
        value = losses.mean_loss(loss, outputs(w, context, x), Batch(x, y))
        return value * counts.astype(value.dtype)

    return objective


def walk(
    descend: Descent, each: int, w: PyTree, context: PyTree, stream: Batch, **more
) -> PyTree:
    """w after the examples of a stream, `each` steps on every one, in their order.

    stream: its x may be what a fixed part of the network makes of the inputs, floating
        arrays that the result has a derivative in. more: as a `Descent` takes it.
    """
    rows = untagged(stream.x), stream.y, counting(stream)
    xs = jax.tree.map(lambda a: jnp.repeat(a, each, axis=0), rows)
    steps = each * len(rows[2])
    return replace(descend, steps=steps)(w, context, (), xs=xs, **more)


def counting(stream: Batch) -> jax.Array:
    """[n] 1 where an example counts, 0 where it is padding."""
    return weights_of(stream.mask, jnp.zeros(examples(stream)))


def one_by_one(model: Model) -> Callable[[PyTree, PyTree], jax.Array]:
    """(params, x [n, ...]) -> outputs [n, ...], each example seen alone.

    A stream brings one example at a time, so a network that normalises by its batch has
    no other, neither in learning nor in being asked.
    """
    if not model.uses_mask:
        return model.apply

    def outputs(params, x):
        tagged = lambda row: Tagged(row, x.tag) if isinstance(x, Tagged) else row
        batch = lambda row: tagged(jax.tree.map(lambda a: a[None], row))
        one = lambda row: model.apply(params, batch(row), None)[0]
        return jax.vmap(one)(untagged(x))

    return outputs


def check_reset(model: Model, name: str) -> None:
    """Raise ValueError unless it is "", or a layer that a network's parameters name."""
    checks.check_names(reset=name)
    if not name:
        return
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    names = sorted(layers) if isinstance(layers, dict) else []
    if name not in names:
        raise ValueError(
            f"reset: the head has no layer {name!r}; expected one of "
            f"{', '.join(map(str, names)) or 'a dict, it has no named layers'}, or ''"
        )


def fresh(head: PyTree, name: str, stream: Batch, ways: int) -> PyTree:
    """A head whose outputs for the classes of a stream begin from 0; the others keep what
    they are. name: of the layer that makes the outputs, "" = leave it as it is."""
    if not name:
        return head
    here = jnp.zeros(ways, bool).at[stream.y].max(counting(stream) > 0)

    def zeroed(a):
        if a.shape[-1] != ways:
            raise ValueError(
                f"reset: expected a layer with an output for each of {ways} ways, the last "
                f"axis of its parameters, got {checks.said(a)}"
            )
        mine = jnp.reshape(here, (1,) * (a.ndim - 1) + (ways,))
        return jnp.where(mine, 0, a)

    return head | {name: jax.tree.map(zeroed, head[name])}


def judged(logits: jax.Array, ways: int) -> jax.Array:
    """Logits as they are. Raises: ValueError unless they are [examples, ways]."""
    if logits.shape[1:] != (ways,):
        raise ValueError(
            f"head: expected outputs [examples, {ways}], one for each of the ways, got "
            f"shape {logits.shape}"
        )
    return logits
