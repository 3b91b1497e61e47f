"""How learners of two domains adapt: steps of one player or several, by parts of w."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint
from jaxmeta.batches import examples, of_examples
from jaxmeta.learners.adaptation.domains import (
    Adapted,
    Seen,
    initial,
    look,
    predicting,
    shots_of,
    sides,
    source_loss,
)
from jaxmeta.learners.features import sized
from jaxmeta.learners.objectives import query_loss
from jaxmeta.tame import tamed
from jaxmeta.types import Batch, MetaLearner, Model, PyTree


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
    turn: jax.Array  # [] which one it is of those that a step is made of


class Player(NamedTuple):
    """Who moves which parameters against what; of several it is a game."""

    parts: tuple[str, ...]  # names of the parameters that are its own
    objective: Callable[[PyTree, Step], jax.Array]  # (w, step) -> []


Term = Callable[[PyTree, Seen], jax.Array]  # (w, what its network sees) -> []


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
    name: str,
    training: Training,
    players: dict[str, Player],
    now: bool = False,
    turns: tuple[tuple[str, ...], ...] = (),
) -> Callable:
    """Training, as a function (w, support, key) -> w, differentiably.

    Args: name of the learner; training; players, who step at the same time; now: whether
        their objectives use `Step.now`; turns: what a step is made of, one after the
        other with the same examples: the parts that move; () = all of them, once.
    Returns: that function; w = {part: parameters}, and what is nobody's part stays.
    Raises: ValueError as `maml`.
    """
    checks.check_sizes(0, inner_steps=training.inner_steps)
    checks.check_functions(rule=training.rule)

    def objective_of(player):
        def objective(moving, now, still, batch):
            support, ((progress, rows), turn) = batch
            now = {**still, **_joined(now)}
            step = Step(chosen(support, rows), progress, now, turn)
            return player.objective({**still, **_joined(moving)}, step)

        return objective

    game = inner.Game({n: objective_of(p) for n, p in players.items()}, semi=True)
    descend = inner.descent(
        name,
        game if now or len(players) > 1 else game.__call__,  # that is a true gradient
        steps=training.inner_steps * max(len(turns), 1),
        adjoint=training.adjoint,
        rule=in_turn(training.rule, players, turns) if turns else training.rule,
        inner_lr=training.inner_lr,
    )

    def train(w, support, key):
        start = {n: {k: w[k] for k in p.parts} for n, p in players.items()}
        still = {k: w[k] for k in w.keys() - _joined(start).keys()}
        xs = repeated(steps_of(support, key, training), max(len(turns), 1))
        return {**still, **_joined(descend(start, still, support, xs=xs))}

    return train


def repeated(xs: PyTree, times: int) -> tuple[PyTree, jax.Array]:
    """Arrays [steps, ...], each entry as often as a step has turns, and which it is."""
    turns = jnp.tile(jnp.arange(times), len(jax.tree.leaves(xs)[0]))
    return jax.tree.map(lambda a: jnp.repeat(a, times, axis=0), xs), turns


def in_turn(rule: inner.Rule, players: dict[str, Player], turns) -> inner.Rule:
    """A rule for each part by itself, whose state stays where it is not the part's turn."""

    def made(inner_lr):
        of_part = rule(inner_lr)
        checks.check_optimizer(of_part, "rule")
        # from outside, what is in a branch is not tamed
        of_part = of_part._replace(update=tamed(of_part.update))

        def moves(part):
            has_turn = jnp.asarray([part in turn for turn in turns])
            return lambda step, **_: has_turn[step % len(turns)]

        parts = {n: {part: part for part in p.parts} for n, p in players.items()}
        rules = {n: optax.conditionally_mask(of_part, moves(n)) for n in _joined(parts)}
        return optax.partition(rules, parts)

    return made


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
