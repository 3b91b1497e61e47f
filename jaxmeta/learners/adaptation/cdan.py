"""CDAN: the domains' classifier sees what a network says as well as its features.

Long, Cao, Wang, Jordan. Conditional Adversarial Domain Adaptation. NeurIPS 2018, arXiv
1705.10667. With f the features, g the softmax predictions, D the domains' classifier:

    min_G  E(G) - lambda E(D, G),   min_D  E(D, G)                        (section 3.1)
    T(f, g) = f (x) g, all products of one number of each                 (section 3.2)
    E(D, G) = -E_s w(H(g)) log D(T) - E_t w(H(g)) log(1 - D(T))           (section 3.3)
    w(H) = 1 + exp(-H),   H(g) = -sum_c g_c log g_c;   w = 1 without `entropy`

lambda grows as in DANN. g and w are constants of a step: D's gradient reaches the features
only through f. The meta-gradient is of all, so `stop_gradient` has no place here. Each
domain's mean is one by its weights, as in the authors' code.

Departures: in that code the weights w, though not their sum, pass a reversed gradient to
the network, of which the paper says nothing; here they do not. No random map in place of
T where it is large (section 3.2). The logit of our D is that of "target". Adam as in
`dann`, in place of momentum and a falling rate.

Meta-parameters: the starts of the network and of the domains' classifier.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.adaptation.domains import Seen, domain_loss
from jaxmeta.learners.adaptation.players import Training, adapting
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def joint(seen: Seen) -> jax.Array:
    """T: [n, ways * features], the features times the probability of each class."""
    g = jax.nn.softmax(seen.now.logits, axis=1)
    products = g[:, :, None] * seen.z[:, None, :]
    return jnp.reshape(products, (len(g), -1))


def certainty(logits: jax.Array) -> jax.Array:
    """w: 1 + exp(-H) of each example, [n]: from 1 + 1 / ways to 2."""
    log_g = jax.nn.log_softmax(logits, axis=1)
    entropy = -jnp.sum(jnp.exp(log_g) * log_g, axis=1)
    return 1 + jnp.exp(-entropy)


def weighted(seen: Seen) -> Seen:
    """What is seen, an example of each domain counting by its certainty."""
    w = certainty(seen.now.logits)
    return seen._replace(source=seen.source * w, target=seen.target * w)


@register(
    paper="Long et al. 2018, arXiv 1705.10667",
    learns=("classification",),
    networks=lambda n: [
        n.encoder(),
        n.mlp((n.facts.features or n.width) * (n.facts.ways or 2), 1),
    ],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def cdan(
    encoder: Model,
    discriminator: Model,
    *,
    ways: int = 2,
    features: int = 64,
    entropy: bool = True,
    weight: float = 1.0,
    inner_lr: float | optax.Schedule = 3e-3,
    inner_steps: int = 2000,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, b1=0.5, eps_root=1e-8
    ),
) -> MetaLearner:
    """CDAN, with entropy conditioning CDAN+E.

    Args:
        encoder: inputs -> [examples, features].
        discriminator: D, [examples, ways * features] -> [examples, 1], the logit of
            "target".
        ways: classes.
        features: size of what the encoder makes of an example.
        entropy: whether an example counts more, the surer the network is of it.
        weight: factor of lambda.
        inner_lr: step size; a number, or a schedule of the step.
        inner_steps: steps of training on a task.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative weight, or as `maml`.
    """
    checks.check_flags(entropy=entropy)
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)

    def e(w, seen):
        counted = weighted(seen) if entropy else seen
        return domain_loss(discriminator, w["discriminator"], joint(seen), counted)

    return adapting(
        "cdan", encoder, training,
        ways=ways, features=features, weight=weight, ramped=True,
        term=lambda w, seen: -e(w, seen),
        others={"discriminator": discriminator}, adversary={"discriminator": e},
        now=True,
    )  # fmt: skip
