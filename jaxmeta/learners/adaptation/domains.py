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
    x: PyTree = None  # [n, ...] inputs
    now: Any = (
        None  # the same, as a constant of a step's gradient, where that is wanted
    )
    progress: jax.Array | float = 0.0  # [] how far training is, from 0 to 1


class Training(NamedTuple):
    """How a learner adapts; arguments of every constructor."""

    inner_lr: float | optax.Schedule
    inner_steps: int
    batch_size: int | None  # examples of each domain in a step; None = all
    together: bool  # one forward pass of both domains, or one of each
    rule: Callable[..., optax.GradientTransformation]
    adjoint: Adjoint


class Step(NamedTuple):
    """What one step of training is made from."""

    support: Batch  # its examples
    progress: jax.Array  # [] how far training is, from 0 to 1
    now: PyTree  # w as a constant of the step's gradient, not of the meta-gradient


class Player(NamedTuple):
    """Who moves which parameters against what; of several it is a game."""

    parts: tuple[str, ...]  # names of the parameters that are its own
    objective: Callable[[PyTree, Step], jax.Array]  # (w, step) -> []


glorot = jax.nn.initializers.glorot_uniform()
Term = Callable[[PyTree, Seen], jax.Array]  # (w, what its network sees) -> []


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


def domain_logits(discriminator: Model, params: PyTree, z: jax.Array) -> jax.Array:
    """The logits [n] of "of the target".

    Raises: ValueError for a discriminator that gives no single one.
    """
    logits = forward(discriminator, params, z)
    if logits.shape != (len(z), 1):
        raise ValueError(
            "discriminator: expected one logit an example, [examples, 1], got shape "
            f"{logits.shape}; its last layer has one output"
        )
    return logits[:, 0]


def domain_loss(
    discriminator: Model, params: PyTree, z: jax.Array, seen: Seen
) -> jax.Array:
    """Cross-entropy of "of the target", each domain half of it."""
    logits = domain_logits(discriminator, params, z)
    of_source = averaged(jax.nn.softplus(logits), seen.source)
    return (of_source + averaged(jax.nn.softplus(-logits), seen.target)) / 2


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
        return Seen(z, logits, support.y, source, target, support.x)

    return seen


def initial(encoder: Model, features: int, ways: int) -> Callable[..., Network]:
    """key -> a network with a random head."""

    def init(key):
        key_encoder, key_head = jax.random.split(key)
        w = glorot(key_head, (features, ways))
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


def check_training(training: Training, **weights) -> None:
    """Raise ValueError for what no learner takes: negative weights, no examples."""
    checks.check_numbers(least=0, **weights)
    checks.check_flags(together=training.together)
    if training.batch_size is not None:
        checks.check_sizes(batch_size=training.batch_size)


def descending(
    name: str, training: Training, players: dict[str, Player], now: bool = False
) -> Callable:
    """Training, as a function (w, support, key) -> w, differentiably.

    Args: name of the learner; training; players, who step at the same time; now: whether
        their objectives use `Step.now`.
    Returns: that function; w = {part: parameters}, and what is nobody's part stays.
    Raises: ValueError as `maml`.
    """

    def objective_of(player):
        def objective(moving, now, still, batch):
            support, (progress, rows) = batch
            now = {**still, **_joined(now)}
            step = Step(chosen(support, rows), progress, now)
            return player.objective({**still, **_joined(moving)}, step)

        return objective

    game = inner.Game({n: objective_of(p) for n, p in players.items()}, semi=True)
    descend = inner.descent(
        name,
        game if now or len(players) > 1 else game.__call__,  # that is a true gradient
        steps=training.inner_steps,
        adjoint=training.adjoint,
        rule=training.rule,
        inner_lr=training.inner_lr,
    )

    def train(w, support, key):
        start = {n: {k: w[k] for k in p.parts} for n, p in players.items()}
        still = {k: w[k] for k in w.keys() - _joined(start).keys()}
        xs = steps_of(support, key, training)
        return {**still, **_joined(descend(start, still, support, xs=xs))}

    return train


def _joined(parts: dict[str, dict]) -> dict:
    """{player: {part: ...}} -> {part: ...}."""
    return {name: part for of_one in parts.values() for name, part in of_one.items()}


def learner_of(init: Callable, adapt: Callable, encoder: Model) -> MetaLearner:
    """The learner whose `adapt` gives an `Adapted`."""
    predict = predicting(encoder)
    return MetaLearner(
        init, adapt, predict, query_loss(adapt, predict, losses.cross_entropy)
    )


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
    now: bool = False,
) -> MetaLearner:
    """A learner that trains a network on the labels of the source and one more term.

        L = source_loss + weight * term(w, seen)        (times `ramp`, if ramped)

    w = {"network": Network, other: parameters}; all but the adversaries descend L, each
    of those its own term (`inner.Game`).

    Args:
        term: (w, seen) -> []. weight: its factor. others: networks besides, by name.
        adversary: name of another network -> the term that it descends.
        now: whether terms use what is seen as a constant of the step, `seen.now`.
    Returns: a `MetaLearner` of classification; `adapted` is an `Adapted`.
    Raises: ValueError for sizes out of range, or as `maml`.
    """
    checks.check_sizes(2, ways=ways)
    check_training(training, weight=weight)
    encoder = sized(encoder, features)
    others, adversary = others or {}, adversary or {}
    checks.check_models(**others)
    begin, see = initial(encoder, features, ways), look(encoder, training.together)

    def init(key):
        key_network, *keys = jax.random.split(key, 1 + len(others))
        made = zip(others.items(), keys, strict=True)
        w = {"network": begin(key_network)}
        return w | {name: other.init(key) for (name, other), key in made}

    def seen(w, step):
        view = see(w["network"], step.support)
        if now:  # the same pass again, which is compiled into one
            view = view._replace(now=see(step.now["network"], step.support))
        return view._replace(progress=step.progress)

    def own(w, step):
        view = seen(w, step)
        factor = weight * ramp(step.progress) if ramped else weight
        return source_loss(view) + factor * term(w, view)

    def against(term):
        return lambda w, step: term(w, seen(w, step))

    mine = ("network", *(n for n in others if n not in adversary))
    players = {n: Player((n,), against(term)) for n, term in adversary.items()}
    train = descending(name, training, {"own": Player(mine, own), **players}, now)

    def adapt(params, support, key=None):
        end = train(params, support, key)
        return Adapted(end["network"], shots_of(support, ways))

    return learner_of(init, adapt, encoder)
