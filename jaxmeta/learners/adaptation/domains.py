"""What learners of a labelled source and an unlabelled target share.

The support set of such a task holds both domains: an example labelled `UNLABELLED` is the
target's, every other the source's. Query examples are the target's. A learner adapts by
training a network on the support set, from meta-learned parameters; the labels of the
target are nowhere in it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint
from jaxmeta.batches import examples, forward, of_examples, one_hot
from jaxmeta.learners.features import mask_absent_classes, sized, weights_of
from jaxmeta.learners.objectives import query_loss
from jaxmeta.types import UNLABELLED, Batch, MetaLearner, Model, PredictFn, PyTree


class Network(NamedTuple):
    """A classifier in two parts."""

    encoder: PyTree
    w: jax.Array  # [features, ways]
    b: jax.Array  # [ways]


class Adapted(NamedTuple):
    """What `predict` needs."""

    network: Network
    shots: jax.Array  # [ways] source examples of each class


class Seen(NamedTuple):
    """A batch of both domains, as a network sees it."""

    z: jax.Array  # [n, features]
    logits: jax.Array  # [n, ways]
    labels: jax.Array  # [n], -1 = unlabelled
    source: jax.Array  # [n] 1 = of the source, 0 = not, or padding
    target: jax.Array  # [n] 1 = of the target


class Training(NamedTuple):
    """How a learner adapts; arguments of every constructor."""

    inner_lr: float | optax.Schedule
    inner_steps: int
    batch_size: int | None  # examples of each domain in a step; None = all
    together: bool  # one forward pass of both domains, or one of each
    rule: Callable[..., optax.GradientTransformation]
    adjoint: Adjoint


# (w, what its network sees, what is given, if anything) -> []
Term = Callable[..., jax.Array]


def sides(support: Batch, dtype) -> tuple[jax.Array, jax.Array]:
    """[n] of the source, [n] of the target: 1, or 0 for the other's and for padding."""
    counts = weights_of(support.mask, jnp.zeros(examples(support), dtype))
    unlabelled = (support.y == UNLABELLED).astype(dtype)
    return counts * (1 - unlabelled), counts * unlabelled


def averaged(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of values [n, ...] where weights [n] are 1; 0 of none."""
    total = jnp.tensordot(weights, values, axes=1)
    return total / jnp.maximum(jnp.sum(weights), 1)


def source_loss(seen: Seen) -> jax.Array:
    """Mean cross-entropy of the source."""
    log_p = jax.nn.log_softmax(seen.logits, axis=1)
    labels = jnp.maximum(seen.labels, 0)
    right = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return averaged(-right, seen.source)


def classify(encoder: Model) -> Callable:
    """(network, x, mask) -> z [n, features], logits [n, ways]."""

    def run(network, x, mask):
        z = forward(encoder, network.encoder, x, mask)
        return z, z @ network.w + network.b[None, :]

    return run


def shots_of(support: Batch, ways: int) -> jax.Array:
    """[ways] source examples of each class."""
    return jnp.sum(
        one_hot(support.y, ways, support.mask, jnp.result_type(float)), axis=0
    )


def predicting(encoder: Model) -> PredictFn:
    """predict of what was adapted: -inf for a class that the source has not."""
    run = classify(encoder)

    def predict(adapted, inputs, mask=None):
        return mask_absent_classes(run(adapted.network, inputs, mask)[1], adapted.shots)

    return predict


def look(encoder: Model, together: bool) -> Callable[[Network, Batch], Seen]:
    """A network's view of a support set.

    together: whether a network that normalises by its batch sees both domains as one, or
        each by its own statistics.
    """
    run = classify(encoder)

    def seen(network, support):
        dtype = network.w.dtype
        source, target = sides(support, dtype)
        if together or not encoder.uses_mask:
            z, logits = run(network, support.x, support.mask)
        else:
            of_source = run(network, support.x, source)
            of_target = run(network, support.x, target)
            choose = lambda s, t: jnp.where(source[:, None] > 0, s, t)
            z, logits = map(choose, of_source, of_target)
        return Seen(z, logits, support.y, source, target)

    return seen


def initial(encoder: Model, features: int, ways: int) -> Callable[..., Network]:
    """key -> a network with a random head."""

    def init(key):
        key_encoder, key_head = jax.random.split(key)
        w = jax.nn.initializers.glorot_uniform()(key_head, (features, ways))
        return Network(encoder.init(key_encoder), w, jnp.zeros(ways))

    return init


def steps_of(support: Batch, key, training: Training) -> Any:
    """What is of single steps: how far training is, 0..1, [steps]; which examples,
    [steps, 2 batch_size], the first half of the source, or None = all."""
    steps, size = training.inner_steps, training.batch_size
    progress = jnp.arange(steps) / max(steps, 1)
    if size is None:
        return progress, None
    key = jax.random.key(0) if key is None else key
    draws = [
        jax.random.choice(k, examples(support), (steps, size), p=side)
        for k, side in zip(
            jax.random.split(key), sides(support, progress.dtype), strict=True
        )
    ]
    return progress, jnp.concatenate(draws, axis=1)


def chosen(support: Batch, rows: jax.Array | None) -> Batch:
    """The examples of a step."""
    if rows is None:
        return support
    mask = None if support.mask is None else support.mask[rows]
    return Batch(of_examples(lambda a: a[rows], support.x), support.y[rows], mask)


def ramp(progress: jax.Array) -> jax.Array:
    """2 / (1 + exp(-10 p)) - 1: from 0 to 1 in the course of training (Ganin et al. 2016,
    section 5.2.2)."""
    return 2 / (1 + jnp.exp(-10 * progress)) - 1


def adapting(
    name: str,
    encoder: Model,
    training: Training,
    *,
    ways: int,
    features: int,
    term: Term,
    weight: float = 1.0,
    ramped: bool = False,
    others: dict[str, Model] | None = None,
    adversary: dict[str, Term] | None = None,
    given: Callable[[Seen], PyTree] | None = None,
) -> MetaLearner:
    """A learner that trains a network on the labels of the source and one more term.

        L = source_loss + weight * term(w, seen)        (times `ramp`, if ramped)

    w = {"network": Network, other: parameters}; all but the adversaries descend L, each
    of those its own term (`inner.Game`).

    Args:
        term: (w, seen) -> []. weight: its factor. others: networks besides, by name.
        adversary: name of another network -> the term that it descends.
        given: what `term` gets besides, without adversaries: no step goes against its
            derivative, see `inner.Given`.
    Returns: a `MetaLearner` of classification; `adapted` is an `Adapted`.
    Raises: ValueError for sizes out of range, or as `maml`.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_numbers(least=0, weight=weight)
    checks.check_flags(together=training.together)
    if training.batch_size is not None:
        checks.check_sizes(batch_size=training.batch_size)
    encoder = sized(encoder, features)
    others, adversary = others or {}, adversary or {}
    checks.check_models(**others)
    begin, see = initial(encoder, features, ways), look(encoder, training.together)

    def init(key):
        key_network, *keys = jax.random.split(key, 1 + len(others))
        made = zip(others.items(), keys, strict=True)
        w = {"network": begin(key_network)}
        return w | {name: other.init(key) for (name, other), key in made}

    def seen(w, batch):
        support, (progress, rows) = batch
        return see(w["network"], chosen(support, rows)), progress

    def own(w, fixed, batch, *given):
        w = {**fixed, **w}
        view, progress = seen(w, batch)
        factor = weight * ramp(progress) if ramped else weight
        return source_loss(view) + factor * term(w, view, *given)

    objective = _played(own, seen, adversary, given)
    descend = inner.descent(
        name,
        objective,
        steps=training.inner_steps,
        adjoint=training.adjoint,
        rule=training.rule,
        inner_lr=training.inner_lr,
    )

    def adapt(params, support, key=None):
        xs = steps_of(support, key, training)
        players = {n: params[n] for n in adversary}
        start = {n: params[n] for n in params if n not in adversary}
        if adversary:
            end = descend({"own": start, **players}, (), support, xs=xs)["own"]
        else:
            end = descend(start, (), support, xs=xs)
        return Adapted(end["network"], shots_of(support, ways))

    predict = predicting(encoder)
    return MetaLearner(
        init, adapt, predict, query_loss(adapt, predict, losses.cross_entropy)
    )


def _played(
    own: Callable, seen: Callable, adversary: dict[str, Term], given: Callable | None
) -> Any:
    """One objective, or the game with adversaries."""
    if given is not None:
        return inner.Given(
            {"own": lambda w, given, context, batch: own(w, {}, batch, given)},
            lambda w, context, batch: given(seen(w, batch)[0]),
        )
    if not adversary:
        return lambda w, context, batch: own(w, {}, batch)

    def first(w, context, batch):
        del context
        others = {n: part for n, part in w.items() if n != "own"}
        return own(w["own"], others, batch)

    def against(term):
        def objective(w, context, batch):
            del context
            everything = {**w, **w["own"]}
            return term(everything, seen(everything, batch)[0])

        return objective

    return inner.Game({"own": first, **{n: against(t) for n, t in adversary.items()}})
