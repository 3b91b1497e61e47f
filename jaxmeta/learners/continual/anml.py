"""A neuromodulated meta-learning algorithm (ANML): a network that gates another's features.

Beaulieu, Frati, Miconi, Lehman, Stanley, Clune, Cheney. Learning to Continually Learn. ECAI
2020, arXiv 2002.09571. A gate g_phi, which a stream does not change, chooses for each input
which features of the prediction network answer, and so which of its weights learn:

    f(x; w, phi) = head_w(sigmoid(g_phi(x)) o features_w(x))
    w_{k+1} = w_k - alpha grad_w l(f(x_k; w_k, phi), y_k)
    (w_0, phi) <- (w_0, phi) - beta grad L(w_n, phi),

L being the loss of the stream's own examples and of others that were learned before.

Departures:
- A class of the stream begins with an output row of 0 (`reset`); the authors' code draws
  it anew in the meta-parameters themselves.
- Second derivatives by default. The authors' code has none: `adjoint=FirstOrder()`.

Meta-parameters: w_0 (encoder and head) and phi (gate).
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


class ANML(NamedTuple):
    """Meta-parameters; and, with others than the gate's, what has adapted."""

    gate: PyTree  # phi
    encoder: PyTree  # of w
    head: PyTree  # of w


@register(
    paper="Beaulieu et al. 2020, arXiv 2002.09571",
    learns=("classification",),
    networks=lambda n: [
        n.encoder(),
        n.mlp(n.facts.x_dims, n.facts.features or n.width),
        n.mlp(n.facts.features or n.width, n.facts.ways or n.facts.y_dims),
    ],
    tiny={"inner_steps": 1},
)
def anml(
    encoder: Model,
    gate: Model,
    head: Model,
    *,
    ways: int = 5,
    features: int = 64,
    inner_lr: float = 0.1,
    inner_steps: int = 1,
    adapt_encoder: bool = True,
    reset: str = "",
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """ANML: meta-learn a gate and a network, adapt the network along a stream.

    Args:
        encoder: inputs -> [examples, features]; it sees one example at a time.
        gate: g, inputs -> [examples, features], before the sigmoid; likewise.
        head: [examples, features] -> [examples, ways].
        ways: outputs of the head; for `jm.tasks.streams` its `ways`, all classes.
        features: size of what the encoder makes of an example.
        inner_lr: alpha, step size of adaptation.
        inner_steps: steps on each example of the support set, in its order.
        adapt_encoder: whether the encoder learns from the stream, too; the paper's does
            in meta-training, and does not in its test.
        reset: name of the head's layer whose outputs for the classes of the support set
            begin from 0 ("head" of `jm.models.mlp`); "" = no reset.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the stream.

    Returns: a `MetaLearner`; `params` and `adapted` are an `ANML(gate, encoder, head)`.
    Raises: ValueError as `oml`, or for a gate of another size.
    """
    encoder = sized(encoder, features)
    checks.check_models(gate=gate, head=head)
    checks.check_sizes(2, ways=ways)
    checks.check_flags(adapt_encoder=adapt_encoder)
    check_reset(head, reset)
    encode, open_gate, answer = map(one_by_one, (encoder, gate, head))

    def gates(params, x):
        values = open_gate(params.gate, x)
        if values.shape[1:] != (features,):
            raise ValueError(
                f"gate: expected outputs [examples, {features}], one for each of the "
                f"features, got shape {values.shape}"
            )
        return jax.nn.sigmoid(values)

    def outputs(w, context, seen):
        """Of one example: its input with its gates, or its gated features."""
        del context
        if not adapt_encoder:
            return answer(w.head, seen)
        x, opened = seen
        return answer(w.head, encode(w.encoder, x) * opened)

    descend = inner.descent(
        "anml",
        along(outputs, loss),
        steps=inner_steps,
        adjoint=adjoint,
        inner_lr=inner_lr,
    )

    def init(key):
        keys = jax.random.split(key, 3)
        models = gate, encoder, head
        return ANML(*(model.init(k) for model, k in zip(models, keys, strict=True)))

    def adapt(params, support, key=None):
        del key  # deterministic
        w = params._replace(gate=(), head=fresh(params.head, reset, support, ways))
        opened = gates(params, support.x)
        if adapt_encoder:
            seen = support._replace(x=(support.x, opened))
            return walk(descend, inner_steps, w, (), seen)._replace(gate=params.gate)
        seen = support._replace(x=encode(params.encoder, support.x) * opened)
        w = walk(descend, inner_steps, w._replace(encoder=()), (), seen)
        return params._replace(head=w.head)

    def predict(adapted, inputs, mask=None):
        del mask  # each input is seen alone
        z = encode(adapted.encoder, inputs) * gates(adapted, inputs)
        return judged(answer(adapted.head, z), ways)

    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
