"""The LSTM meta-learner: the weights are a cell's state, its gates the inner rule.

Ravi, Larochelle. Optimization as a Model for Few-Shot Learning. ICLR 2017. Section 3.1:

    theta_t = f_t o theta_{t-1} - i_t o grad L_t                              (eq. 2)
    i_t = sigma(W_I [x_t, theta_{t-1}, i_{t-1}] + b_I)
    f_t = sigma(W_F [x_t, theta_{t-1}, f_{t-1}] + b_F)

x_t is the state of an ordinary LSTM that reads the gradient and the loss, each as
(log size, sign), appendix; all coordinates of theta share the weights.

Departures:
- Inner gradients and losses are differentiated; the paper takes them as constants.
- A gate sees its last value, as in the equations; in the authors' code its sum before
  the sigmoid.
- Each update sees the whole support set; the authors' code passes through it several
  times in minibatches.
- Gates start at inner_lr and 0.9999; the authors' biases start in -5..-4 and 4..5, that
  is at about 0.01 and 0.99.

Meta-parameters: theta_0 (the cell's first state), the two layers' weights.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta import checks, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.learned_rule import learned_rule
from jaxmeta.learners.gradient.parts import log_and_sign
from jaxmeta.learners.registry import register
from jaxmeta.models import lstm
from jaxmeta.types import MetaLearner, Model


def _rule(phi) -> optax.GradientTransformationExtraArgs:
    hidden = phi["lstm"]["b"].size // 4

    def init(params):
        flat = ravel_pytree(params)[0]
        gates = jnp.ones_like(flat)  # i_0 = 0, f_0 = 1: as if nothing had happened yet
        return lstm.zero_state(flat.size, hidden, flat.dtype), 0 * gates, gates

    def update(updates, state, params=None, *, value):
        cell, i, f = state
        flat, unravel = ravel_pytree(updates)
        weights = ravel_pytree(params)[0]
        loss = jnp.full_like(flat, value)
        seen = jnp.concatenate([log_and_sign(flat), log_and_sign(loss)], -1)
        cell = lstm.step(phi["lstm"], cell, seen)

        def gate(parameters, last):
            x = jnp.concatenate([cell.h, weights[:, None], last[:, None]], axis=-1)
            return jax.nn.sigmoid(x @ parameters["w"] + parameters["b"])

        i, f = gate(phi["input"], i), gate(phi["forget"], f)
        return unravel((f - 1) * weights - i * flat), (cell, i, f)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


@register(
    paper="Ravi and Larochelle 2017, ICLR",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
    tiny={"hidden": 4},
)
def lstm_meta_learner(
    model: Model,
    *,
    hidden: int = 20,
    inner_lr: float = 0.01,
    inner_steps: int = 5,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """LSTM meta-learner: learn the initialisation and the gates of each step.

    Args:
        model: the network; its parameters are all adapted, at most some 100,000 of them
            (each has an LSTM state of its own).
        hidden: size of the LSTM that reads gradients and losses.
        inner_lr: where the input gate starts, in 0..1 exclusively; the forget gate
            starts next to 1, so the first rule is nearly gradient descent.
        inner_steps: updates of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop; the paper takes gradients
            as constants, here they are differentiated too.

    Returns: a `MetaLearner`; its params are a `LearnedRule(theta, phi)`.
    Raises: ValueError for sizes below 1, an `inner_lr` outside 0..1, or an adjoint that
        gives no gradient for the rule (`FirstOrder`, `Implicit`).
    """
    checks.check_numbers(above=0, below=1, inner_lr=inner_lr)  # a gate's value
    checks.check_sizes(0, inner_steps=inner_steps)
    checks.check_sizes(hidden=hidden)

    def init_rule(key, theta):
        dtype = jax.tree.leaves(theta)[0].dtype
        key_lstm, key_i, key_f = jax.random.split(key, 3)

        def gate(key, start):
            w = 0.01 * jax.random.normal(key, (hidden + 2,))
            return {"w": w, "b": jnp.full((), math.log(start / (1 - start)))}

        phi = {
            "lstm": lstm.init(key_lstm, 4, hidden),
            "input": gate(key_i, inner_lr),
            "forget": gate(key_f, 0.9999),
        }
        return jax.tree.map(lambda a: a.astype(dtype), phi)

    return learned_rule(
        model,
        _rule,
        init_rule,
        inner_steps=inner_steps,
        loss=loss,
        adjoint=adjoint,
        name="lstm_meta_learner",
    )
