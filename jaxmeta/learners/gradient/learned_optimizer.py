"""A learned optimiser: an LSTM that maps gradients to updates, for every coordinate.

Andrychowicz, Denil, Gomez, Hoffman, Pfau, Schaul, Shillingford, de Freitas. Learning to
Learn by Gradient Descent by Gradient Descent. NeurIPS 2016, arXiv 1606.04474. Equation 3:

    L(phi) = E_f [ sum_t w_t f(theta_t) ],   theta_{t+1} = theta_t + g_t
    (g_t, h_{t+1}) = LSTM(grad f(theta_t), h_t, phi)

Two layers of 20, the same weights for all coordinates, gradients as (log size, sign).

Departures:
- Inner gradients are differentiated; the paper takes them as constants.
- A meta-step sees a task from its start to its end, truncated or not; the authors' code
  takes one after each 20 steps, and goes on from there.
- f is the loss of the whole support set at each step; the paper's networks see a new
  minibatch.

Meta-parameters: phi, the LSTM's weights. Where a task starts is not learned: theta_0 is
the model's own random initialisation.
"""

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, Truncated
from jaxmeta.learners.gradient.parts import log_and_sign
from jaxmeta.learners.objectives import (
    predictor,
    query_loss,
    query_metrics,
    support_objective,
)
from jaxmeta.learners.registry import register
from jaxmeta.models import lstm
from jaxmeta.types import MetaLearner, Model, PyTree, Task


def lstm_optimizer(phi: PyTree, scale: float = 0.1) -> optax.GradientTransformation:
    """The learned optimiser with trained weights, for use like any of optax.

    Args: phi: the params of `learned_optimizer`; scale: as there.
    Returns: an optax transformation, gradients -> updates.

    >>> import jax, jax.numpy as jnp, optax, jaxmeta as jm
    >>> phi = jm.learned_optimizer(jm.models.mlp()).init(jax.random.key(0))
    >>> optimizer, w = jm.lstm_optimizer(phi), {"a": jnp.ones(3)}
    >>> updates, state = optimizer.update({"a": jnp.ones(3)}, optimizer.init(w))
    >>> optax.apply_updates(w, updates)["a"].shape
    (3,)
    """
    checks.check_positive(scale=scale)
    hidden = phi["lstm1"]["b"].size // 4

    def init(params):
        size = ravel_pytree(params)[0].size
        return (lstm.zero_state(size, hidden, phi["out"]["w"].dtype),) * 2

    def update(updates, state, params=None):
        del params
        flat, unravel = ravel_pytree(updates)
        seen = log_and_sign(flat.astype(phi["out"]["w"].dtype))
        first = lstm.step(phi["lstm1"], state[0], seen)
        second = lstm.step(phi["lstm2"], state[1], first.h)
        out = second.h @ phi["out"]["w"] + phi["out"]["b"]
        return unravel((scale * out).astype(flat.dtype)), (first, second)

    return optax.GradientTransformation(init, update)


@register(
    paper="Andrychowicz et al. 2016, arXiv 1606.04474",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
    tiny={"inner_steps": 4, "hidden": 4},
)
def learned_optimizer(
    model: Model,
    *,
    hidden: int = 20,
    inner_steps: int = 20,
    scale: float = 0.1,
    last_weight: float = 1.0,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = Truncated(20),
) -> MetaLearner:
    """Learn an optimiser for a family of problems.

    Args:
        model: the network that is optimised, from `model.init` anew in each task.
        hidden: size of the two layers.
        inner_steps: steps of the optimiser on a task; test with more than in training.
        scale: factor of the LSTM's output (0.1 in the paper).
        last_weight: w_T / w_1, the weight of the last step's loss beside the first's,
            growing by a constant factor in between; 1 weighs all alike. Losses that fall
            by orders of magnitude need it for their end to count.
        loss: loss of one example; what is optimised is its mean over the support set,
            and training descends the weighted mean of that over all steps.
        adjoint: how to differentiate through the steps: the paper backpropagates through
            20 of them, and takes gradients as constants; here they are exact.

    Returns: a `MetaLearner`; its params are the optimiser's weights. `adapt` and `loss`
        start from `model.init(key)`, or `jax.random.key(0)` without a key.
    Raises: ValueError for sizes below 1, a weight that is not positive, or an adjoint that
        gives no gradient for the rule (`FirstOrder`, `Implicit`).
    """
    checks.check_sizes(hidden=hidden)
    checks.check_positive(scale=scale, last_weight=last_weight)
    objective = support_objective(model, loss)

    def init(key):
        key_1, key_2, key_out = jax.random.split(key, 3)
        w = jax.random.normal(key_out, (hidden,)) / jnp.sqrt(1.0 * hidden)
        return {
            "lstm1": lstm.init(key_1, 2, hidden),
            "lstm2": lstm.init(key_2, hidden, hidden),
            "out": {"w": 0.1 * w, "b": jnp.zeros(())},
        }

    descend = inner.descent(
        "learned_optimizer",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=lambda hyper: lstm_optimizer(*hyper),
        learns=("rule",),
        least=1,
    )

    def run(params, support, key, trajectory):
        theta = model.init(jax.random.key(0) if key is None else key)
        dtype = params["out"]["w"].dtype
        theta = jax.tree.map(lambda w: w.astype(dtype), theta)
        return descend(theta, (), support, hyper=(params, scale), trajectory=trajectory)

    def adapt(params, support, key=None):
        return run(params, support, key, trajectory=False)

    predict = predictor(model)
    judge = query_metrics(predict, loss)

    def of_all_steps(params, task: Task, key, step):
        del step
        path = run(params, task.support, key, trajectory=True)
        values = jax.vmap(lambda w: objective(w, (), task.support))(path)
        _, metrics = judge(jax.tree.map(lambda a: a[-1], path), task)
        return jnp.mean(_weights(inner_steps, last_weight, values) * values), metrics

    test = query_loss(adapt, predict, loss)
    return MetaLearner(init, adapt, predict, test, of_all_steps)


def _weights(steps: int, last: float, like):
    """w_t [steps], geometric from w_1 to w_T = last w_1, with mean 1."""
    w = last ** (jnp.arange(steps, dtype=like.dtype) / max(1, steps - 1))
    return w / jnp.mean(w)
