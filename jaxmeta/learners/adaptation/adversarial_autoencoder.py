"""A domain-adversarial autoencoder: features that no classifier tells the domains by, and
of which both can be made again.

An adversary of the code of an autoencoder: Makhzani, Shlens, Jaitly, Goodfellow, Frey.
Adversarial Autoencoders. 2015, arXiv 1511.05644. Reconstruction of the target: Ghifary,
Kleijn, Zhang, Balduzzi, Li. Deep Reconstruction-Classification Networks for Unsupervised
Domain Adaptation (DRCN). ECCV 2016, arXiv 1607.03516. With E the encoder, D the decoder,
C the classifier, A the adversary, L_A its cross-entropy between the domains:

    min over E, C, D   L_C(source) + rho |x - D(E(x))|^2 - lambda L_A
    min over A         L_A

lambda grows as in DANN. With rho = 0 it is DANN. With no adversary it is DRCN's objective
lambda L_C + (1 - lambda) L_r divided by lambda: rho = (1 - lambda) / lambda, and
reconstruct="target".

Departures: Makhzani's adversary holds the code to a prior that is drawn from; here the
source's features are what the target's are held to. The squared error is a mean over the
numbers of an example. DRCN takes steps for source and target in turn, and denoises. Adam
as in `dann`.

Meta-parameters: the starts of network, decoder and adversary.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import columns, forward, untagged
from jaxmeta.learners.adaptation.domains import Seen, averaged, domain_loss
from jaxmeta.learners.adaptation.players import Training, adapting, ramp
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def squared_error(decoder: Model, params, seen: Seen) -> jax.Array:
    """|x - D(E(x))|^2 / numbers, of each example: [n].

    Raises: ValueError for a decoder that makes other numbers than an input has.
    """
    x = columns(untagged(seen.x))
    made = forward(decoder, params, seen.z)
    if made.shape != x.shape:
        raise ValueError(
            f"decoder: expected outputs [examples, {x.shape[1]}], the numbers of an input, "
            f"got shape {made.shape}"
        )
    return jnp.mean(jnp.square(made - x), axis=1)


@register(
    paper="Makhzani et al. 2015, arXiv 1511.05644; Ghifary et al. 2016, arXiv 1607.03516",
    learns=("classification",),
    networks=lambda n: [
        n.encoder(),
        n.mlp(n.facts.features or n.width, n.facts.x_dims),
        n.mlp(n.facts.features or n.width, 1),
    ],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01},
)
def adversarial_autoencoder(
    encoder: Model,
    decoder: Model,
    discriminator: Model,
    *,
    ways: int = 2,
    features: int = 64,
    weight: float = 1.0,
    reconstruction: float = 1.0,
    reconstruct: Literal["both", "target"] = "both",
    inner_lr: float | optax.Schedule = 3e-3,
    inner_steps: int = 2000,
    batch_size: int | None = None,
    together: bool = True,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, b1=0.5, eps_root=1e-8
    ),
) -> MetaLearner:
    """Domain-adversarial autoencoder.

    Args:
        encoder: E, inputs -> [examples, features].
        decoder: D, [examples, features] -> [examples, numbers of an input].
        discriminator: A, [examples, features] -> [examples, 1], the logit of "target".
        ways: classes.
        features: size of what the encoder makes of an example.
        weight: factor of lambda, of the adversary.
        reconstruction: rho, factor of the reconstruction.
        reconstruct: the domains that are made again, "both" or "target".
        inner_lr: step size; a number, or a schedule of the step.
        inner_steps: steps of training on a task.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        together: whether a network that normalises by its batch sees both domains as one.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, a negative weight, or as `maml`.
    """
    checks.check_numbers(least=0, weight=weight, reconstruction=reconstruction)
    checks.check_choice("reconstruct", reconstruct, ("both", "target"))
    training = Training(inner_lr, inner_steps, batch_size, together, rule, adjoint)
    l_a = lambda w, seen: domain_loss(discriminator, w["discriminator"], seen.z, seen)

    def term(w, seen):
        each = squared_error(decoder, w["decoder"], seen)
        whose = seen.target + (seen.source if reconstruct == "both" else 0)
        made = reconstruction * averaged(each, whose)
        return made - weight * ramp(seen.progress) * l_a(w, seen)

    return adapting(
        "adversarial_autoencoder", encoder, training,
        ways=ways, features=features, term=term,
        others={"discriminator": discriminator, "decoder": decoder},
        adversary={"discriminator": l_a},
    )  # fmt: skip
