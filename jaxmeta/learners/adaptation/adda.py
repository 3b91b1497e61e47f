"""ADDA: an encoder of the target whose features pass for those of the source.

Tzeng, Hoffman, Saenko, Darrell. Adversarial Discriminative Domain Adaptation. CVPR 2017,
arXiv 1702.05464. With M_s, M_t the encoders, C the classifier, D the probability of "of
the source", one after the other (eq. 9):

    min over M_s, C   L_cls = cross-entropy of C(M_s(x_s))
    min over D        L_advD = -E_s log D(M_s(x_s)) - E_t log(1 - D(M_t(x_t)))
    min over M_t      L_advM = -E_t log D(M_t(x_t)),   inverted labels, M_t from M_s

The last two at the same time, M_s and C fixed. The target is classified by C(M_t(x)).

Numbers are those of the authors' code: as many steps of both, of the second a fifth of the
step size. Each encoder sees its own domain alone, so one that normalises by its batch sees
each by its own statistics, as in the paper; hence no argument `together`.

Departures: D sees features, as in the paper; in the authors' code it sees logits, and the
whole network of the target moves. Our D's logit is of "target", and L_advD the mean of its
halves. No decay of the weights, which is 2.5e-5 there. Adam with b1 = 0.5 is that of their
second descent, and here the first's, too. 2,000 steps by default, there 10,000.

Meta-parameters: the starts of the network and of the domains' classifier.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import forward
from jaxmeta.learners.adaptation.domains import (
    Adapted,
    averaged,
    domain_logits,
    domain_loss,
    initial,
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
from jaxmeta.types import MetaLearner, Model


def game(encoder: Model, discriminator: Model) -> dict[str, Player]:
    """L_advM and L_advD; w = {"source", "target": encoders, "discriminator": of D}."""

    def seen(w, support):  # its classifier plays no part
        of_source = look(encoder, together=False)(w["source"], support)
        z = forward(encoder, w["target"], support.x, of_source.target)
        return of_source, z

    def l_adv_m(w, step):
        of_source, z = seen(w, step.support)
        logits = domain_logits(discriminator, w["discriminator"], z)
        return averaged(jax.nn.softplus(logits), of_source.target)

    def l_adv_d(w, step):
        of_source, z = seen(w, step.support)
        z = jnp.where(of_source.source[:, None] > 0, of_source.z, z)
        return domain_loss(discriminator, w["discriminator"], z, of_source)

    return {
        "target": Player(("target",), l_adv_m),
        "discriminator": Player(("discriminator",), l_adv_d),
    }


def adversarial(training: Training, lr, steps: int | None) -> Training:
    """The second descent; None = a fifth of the first's step size, as many steps."""
    first = training.inner_lr
    if lr is None:
        lr = (lambda step: first(step) / 5) if callable(first) else first / 5
    elif not callable(lr):
        checks.check_numbers(least=0, adversarial_lr=lr)
    steps = training.inner_steps if steps is None else steps
    checks.check_sizes(0, adversarial_steps=steps)
    return training._replace(inner_lr=lr, inner_steps=steps)


@register(
    paper="Tzeng et al. 2017, arXiv 1702.05464",
    learns=("classification",),
    networks=lambda n: [n.encoder(), n.mlp(n.facts.features or n.width, 1)],
    unlabelled="required",
    tiny={"inner_steps": 2, "inner_lr": 0.01, "adversarial_lr": 2e-4},
)
def adda(
    encoder: Model,
    discriminator: Model,
    *,
    ways: int = 2,
    features: int = 64,
    inner_lr: float | optax.Schedule = 1e-3,
    inner_steps: int = 2000,
    adversarial_lr: float | optax.Schedule | None = None,
    adversarial_steps: int | None = None,
    batch_size: int | None = None,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, b1=0.5, eps_root=1e-8
    ),
) -> MetaLearner:
    """ADDA.

    Args:
        encoder: of both domains, inputs -> [examples, features].
        discriminator: D, [examples, features] -> [examples, 1], the logit of "target".
        ways: classes.
        features: size of what the encoder makes of an example.
        inner_lr: step size on the source; a number, or a schedule of the step.
        inner_steps: steps of training on the source.
        adversarial_lr: step size of the target's encoder and of D, as `inner_lr`; None = a
            fifth of that.
        adversarial_steps: steps of training these; None = `inner_steps`.
        batch_size: examples of each domain in a step, drawn with replacement; None = all.
        adjoint: how to differentiate `loss` through the steps.
        rule: makes the update rule of each descent from its step size.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, or as `maml`.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_models(discriminator=discriminator)
    training = Training(inner_lr, inner_steps, batch_size, False, rule, adjoint)
    check_training(training)
    encoder = sized(encoder, features)
    see, begin = look(encoder, together=False), initial(encoder, features, ways)
    l_cls = lambda w, step: source_loss(see(w["network"], step.support))
    learn = descending("adda", training, {"own": Player(("network",), l_cls)})
    after = adversarial(training, adversarial_lr, adversarial_steps)
    fool = descending("adda", after, game(encoder, discriminator))

    def init(key):
        key_network, key_adversary = jax.random.split(key)
        adversary = discriminator.init(key_adversary)
        return {"network": begin(key_network), "discriminator": adversary}

    def adapt(params, support, key=None):
        keys = (None, None) if key is None else jax.random.split(key)
        learned = learn({"network": params["network"]}, support, keys[0])["network"]
        encoders = {"source": learned, "target": learned.encoder}
        end = fool({**params, **encoders}, support, keys[1])
        network = learned._replace(encoder=end["target"])
        return Adapted(network, shots_of(support, ways))

    return learner_of(init, adapt, encoder)
