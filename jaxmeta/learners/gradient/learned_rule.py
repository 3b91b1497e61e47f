"""An initialisation and an inner rule, learned together: what several methods are.

    theta'_{k+1} = theta'_k + rule(phi)(grad L_support(theta'_k)),  theta'_0 = theta

Meta-SGD, Meta-Curvature, ALFA and the LSTM meta-learner are this with their own rule;
any optax transformation with learned hyper-parameters is another.

Meta-parameters: theta, the model's parameters, and phi, the rule's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.boundary import learner
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.types import MetaLearner, Model, PyTree


class LearnedRule(NamedTuple):
    """Meta-parameters: an initialisation and what its inner rule is made of."""

    theta: PyTree
    phi: PyTree


@learner
def learned_rule(
    model: Model,
    rule: Callable[[PyTree], optax.GradientTransformation],
    init_rule: Callable[[jax.Array, PyTree], PyTree],
    *,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    name: str = "learned_rule",
) -> MetaLearner:
    """Learn an initialisation and the parameters of any inner rule.

    Args:
        model: the network; its parameters are all adapted.
        rule: phi -> optax transformation, differentiable in phi; one whose update needs
            `value=` gets the support loss.
        init_rule: (key, theta) -> the phi to start from.
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        name: for error messages.

    Returns: a `MetaLearner`; its params are a `LearnedRule`, `adapted` a tree of the
        model's parameters.
    Raises: ValueError for a negative `inner_steps`, or an adjoint that gives no gradient
        for the rule (`FirstOrder`, `Implicit`).

    Adam with its step size and momentum learned, through a logarithm and a sigmoid:

    >>> import jax, jax.numpy as jnp, optax, jaxmeta as jm
    >>> def rule(phi):
    ...     return optax.adam(jnp.exp(phi["log_lr"]), b1=jax.nn.sigmoid(phi["b1"]),
    ...                       eps_root=1e-8)
    >>> learner = jm.learned_rule(
    ...     jm.models.mlp(), rule,
    ...     lambda key, theta: {"log_lr": jnp.log(0.01), "b1": jnp.array(2.0)},
    ...     inner_steps=3, loss=jm.losses.mse)
    >>> params = learner.init(jax.random.key(0))
    >>> task = jm.tasks.sinusoid().sample(jax.random.key(1))
    >>> gradient = jax.jit(jax.grad(lambda p: learner.loss(p, task)[0]))(params)
    >>> bool(gradient.phi["log_lr"] != 0)
    True
    """
    checks.check_functions(rule=rule, init_rule=init_rule)
    checks.check_names(name=name)
    objective = support_objective(model, loss)

    def init(key):
        key_theta, key_phi = jax.random.split(key)
        theta = model.init(key_theta)
        return LearnedRule(theta, init_rule(key_phi, theta))

    descend = inner.descent(
        name,
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        learns=("start", "rule"),
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        return descend(params.theta, (), support, hyper=params.phi)

    predict = predictor(model)
    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
