"""Online-aware meta-learning (OML): features on which a head can learn a stream.

Javed, White. Meta-Learning Representations for Continual Learning. NeurIPS 2019, arXiv
1905.12588. A representation phi_theta, and a prediction network g_W on it, which learns the
examples of a stream one by one, each once (eq. 3, algorithm 2):

    W_{k+1} = W_k - alpha grad_W l(g_{W_k}(phi_theta(x_k)), y_k)
    (theta, W_0) <- (theta, W_0) - beta grad L(W_n, theta),

L being the loss of the stream's classes and of others that were learned before: what is
forgotten costs. `jm.tasks.streams` draws such tasks.

Departures:
- A class of the stream begins with an output row of 0 (`reset`); the authors' code draws
  it anew in the meta-parameters themselves.
- Second derivatives by default. The authors' code had none by mistake until July 2020,
  which is `adjoint=FirstOrder()`; then theta learns from the query's features alone.

Meta-parameters: theta and W_0.
"""

from typing import NamedTuple

import jax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.continual.walk import (
    along,
    check_reset,
    fresh,
    judged,
    one_by_one,
    walk,
)
from jaxmeta.learners.features import sized
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class OML(NamedTuple):
    """Meta-parameters; and, with another head, what has adapted."""

    encoder: PyTree  # theta
    head: PyTree  # W


@register(
    paper="Javed and White 2019, arXiv 1905.12588",
    learns=("classification",),
    networks=lambda n: [
        n.encoder(),
        n.mlp(n.facts.features or n.width, n.facts.ways or n.facts.y_dims),
    ],
    tiny={"inner_steps": 1},
)
def oml(
    encoder: Model,
    head: Model,
    *,
    ways: int = 5,
    features: int = 64,
    inner_lr: float = 0.03,
    inner_steps: int = 1,
    reset: str = "",
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """OML: meta-learn features and the start of a head, adapt the head along a stream.

    Args:
        encoder: phi, inputs -> [examples, features]; it sees one example at a time.
        head: g, [examples, features] -> [examples, ways].
        ways: outputs of the head; for `jm.tasks.streams` its `ways`, all classes.
        features: size of what the encoder makes of an example.
        inner_lr: alpha, step size of adaptation.
        inner_steps: steps on each example of the support set, in its order.
        reset: name of the head's layer whose outputs for the classes of the support set
            begin from 0 ("head" of `jm.models.mlp`); "" = no reset.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the stream.

    Returns: a `MetaLearner`; `params` and `adapted` are an `OML(encoder, head)`.
    Raises: ValueError for fewer than 2 ways, a negative `inner_lr` or `inner_steps`, a
        head without such a layer, or an adjoint that gives no gradient for a start.

    >>> import jax, jaxmeta as jm
    >>> learner = oml(jm.models.mlp(2, 8), jm.models.mlp(8, 3, ()), ways=3, features=8)
    >>> x, y = jax.numpy.eye(2), jax.numpy.array([0, 2])
    >>> adapted = learner.adapt(learner.init(jax.random.key(0)), jm.Batch(x, y))
    >>> learner.predict(adapted, x).shape
    (2, 3)
    """
    encoder = sized(encoder, features)
    checks.check_models(head=head)
    checks.check_sizes(2, ways=ways)
    check_reset(head, reset)
    encode, answer = one_by_one(encoder), one_by_one(head)

    descend = inner.descent(
        "oml",
        along(lambda w, context, z: answer(w, z), loss),
        steps=inner_steps,
        adjoint=adjoint,
        inner_lr=inner_lr,
    )

    def init(key):
        key_encoder, key_head = jax.random.split(key)
        return OML(encoder.init(key_encoder), head.init(key_head))

    def adapt(params, support, key=None):
        del key  # deterministic
        w = fresh(params.head, reset, support, ways)
        seen = support._replace(x=encode(params.encoder, support.x))
        return params._replace(head=walk(descend, inner_steps, w, (), seen))

    def predict(adapted, inputs, mask=None):
        del mask  # each input is seen alone
        return judged(answer(adapted.head, encode(adapted.encoder, inputs)), ways)

    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
