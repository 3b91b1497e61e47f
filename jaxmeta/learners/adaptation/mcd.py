"""MCD: two heads that disagree on the target find what the features must change.

Saito, Watanabe, Ushiku, Harada. Maximum Classifier Discrepancy for Unsupervised Domain
Adaptation. CVPR 2018, arXiv 1712.02560. With G the features, F_1 and F_2 the heads, p_1
and p_2 their softmax outputs:

    d(p_1, p_2) = 1/K sum_k |p_1k - p_2k|                                (section 3.2)
    A:  min over G, F_1, F_2   L(X_s, Y_s), both heads' cross-entropy    (section 3.3)
    B:  min over F_1, F_2      L(X_s, Y_s) - L_adv(X_t),  L_adv = E_t d
    C:  min over G             L_adv(X_t), n times

A step of training is one of A, one of B and n of C, with the same examples. G and the
heads have an optimiser each, which knows A and C, A and B. A prediction is the mean of
both heads' logits (the authors' code takes their sum).

Departures: heads are linear. By default 2,000 steps of 1e-3; the authors' code takes 2e-4
and very many more, and a decay of the weights of 5e-4, which there is none of here. There a
network that normalises by its batch sees domains apart (`together=False`).

Meta-parameters: the starts of features and heads.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.domains import (
    Adapted,
    Network,
    Seen,
    averaged,
    look,
    shots_of,
    source_loss,
)
from jaxmeta.learners.adaptation.players import (
    Player,
    Training,
    check_training,
    descending,
    learner_of,
)
from jaxmeta.learners.features import sized
from jaxmeta.learners.registry import register
from jaxmeta.models.parameters import glorot
from jaxmeta.types import MetaLearner, Model

PARTS = "encoder", "heads"  # of what moves


class Heads(NamedTuple):
    """F_1 and F_2."""

    w: jax.Array  # [2, features, ways]
    b: jax.Array  # [2, ways]


def d(logits_1: jax.Array, logits_2: jax.Array) -> jax.Array:
    """The discrepancy of each example: logits [n, ways] -> [n]."""
    p_1, p_2 = (jax.nn.softmax(logits, axis=1) for logits in (logits_1, logits_2))
    return jnp.mean(jnp.abs(p_1 - p_2), axis=1)


def both(encoder: Model, together: bool) -> Callable:
    """(w, support) -> what is seen by the first head, what by the second."""
    see = look(encoder, together)

    def seen(w, support) -> tuple[Seen, Seen]:
        heads = w["heads"]
        first = see(Network(w["encoder"], heads.w[0], heads.b[0]), support)
        return first, first._replace(logits=first.z @ heads.w[1] + heads.b[1][None, :])

    return seen


def mean_head(w) -> Network:
    """The network whose logits are the mean of both heads'."""
    head = jax.tree.map(lambda a: jnp.mean(a, axis=0), w["heads"])
    return Network(w["encoder"], *head)


@register(
    paper="Saito et al. 2018, arXiv 1712.02560",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
    tiny={  # near a gradient of 0 the default rule curves too much for finite differences
        "inner_steps": 2,
        "repeats": 1,
        "inner_lr": 0.01,
        "rule": partial(optax.adam, eps_root=1e-4),
    },
)
def mcd(
    encoder: Model,
    *,
    ways: int = 2,
    features: int = 64,
    weight: float = 1.0,
    repeats: int = 4,
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 2000,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """Maximum classifier discrepancy.

    Args:
        encoder: G, inputs -> [examples, features].
        ways: classes.
        features: size of what the encoder makes of an example.
        weight: factor of the discrepancy.
        repeats: n, how often C is done after A and B.
        inner_lr: step size; a number, or a schedule of the steps of G and of the heads,
            which each count their own.
        inner_steps: steps of training on a task, each of A, B and n times C.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative weight, no repeats, or as `maml`.
    """
    checks.check_sizes(2, ways=ways)
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    checks.check_sizes(repeats=repeats)
    check_training(training, weight=weight)
    encoder = sized(encoder, features)
    seen = both(encoder, together)

    def init(key):
        key_encoder, *keys = jax.random.split(key, 3)
        w = jnp.stack([glorot(key, (features, ways)) for key in keys])
        heads = Heads(w, jnp.zeros((2, ways)))
        return {"encoder": encoder.init(key_encoder), "heads": heads}

    def objective(w, step):
        one, two = seen(w, step.support)
        l_s = source_loss(one) + source_loss(two)
        l_adv = weight * averaged(d(one.logits, two.logits), one.target)
        return jnp.select([step.turn == 0, step.turn == 1], [l_s, l_s - l_adv], l_adv)

    turns = (PARTS, ("heads",), *[("encoder",)] * repeats)  # A, B, C, ..., C
    player = Player(PARTS, objective)
    train = descending("mcd", training, {"own": player}, turns=turns)

    def adapt(params, support, key=None):
        end = train(params, support, key)
        return Adapted(mean_head(end), shots_of(support, ways))

    return learner_of(init, adapt, encoder)
