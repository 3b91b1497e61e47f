"""La-MAML: look ahead along a stream, with a learned rate for every weight.

Gupta, Yadav, Paull. La-MAML: Look-ahead Meta Learning for Continual Learning. NeurIPS 2020,
arXiv 2007.13904. The examples of a minibatch b one by one, from theta_0 and with rates alpha
that are entries of a tree like theta; then, with b_m the minibatch and examples that were
remembered (algorithm 1):

    theta_{k+1} = theta_k - max(0, alpha) o grad l(theta_k; x_k, y_k)
    L = mean over k of l(theta_k; b_m)
    alpha   <- alpha - eta grad_alpha L
    theta_0 <- theta_0 - max(0, alpha) o grad_theta L

A task's support set is b, its query set b_m. `jm.continual.look_ahead` makes these tasks
from a stream and a memory, `asynchronous` are the last two lines; `jm.tasks.streams` draws
tasks to learn from before there is a stream.

Departures: the authors clip the gradients' norms outside; their clipping inside has no
effect. Second derivatives by default; theirs are off (`first_order=True`).

Meta-parameters: theta_0 and alpha.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.continual.walk import along, counting, one_by_one, walk
from jaxmeta.learners.objectives import query_loss, query_metrics
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree, Task


class LaMAML(NamedTuple):
    """Meta-parameters, and gradients of them."""

    theta: PyTree
    alpha: PyTree  # of the same shapes


def _against(alpha: PyTree, g: PyTree) -> PyTree:
    """-max(0, alpha) o g."""
    return jax.tree.map(lambda a, g: -jax.nn.relu(a) * g, alpha, g)


def asynchronous(rate: float = 0.1, clip: float = 2.0) -> optax.GradientTransformation:
    """La-MAML's outer update: the rates first, then the weights with these rates.

    Args: rate: eta, of the rates. clip: the greatest norm of either gradient.
    Returns: an optax transformation for `LaMAML(theta, alpha)`.
    Raises: ValueError for a rate or a clip that is not positive.
    """
    checks.check_positive(rate=rate, clip=clip)

    def clipped(g):
        norm = optax.tree.norm(g)
        return jax.tree.map(lambda a: a * jnp.minimum(1, clip / (norm + 1e-6)), g)

    def update(g, params):
        moved = jax.tree.map(lambda a: -rate * a, clipped(g.alpha))
        alpha = optax.apply_updates(params.alpha, moved)
        return LaMAML(_against(alpha, clipped(g.theta)), moved)

    return optax.stateless(update)


@register(
    paper="Gupta et al. 2020, arXiv 2007.13904",
    learns=("classification",),
    networks=lambda n: [n.predictor()],
    tiny={"inner_steps": 1},
)
def la_maml(
    model: Model,
    *,
    inner_lr: float = 0.15,
    inner_steps: int = 1,
    first_order: bool = False,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """La-MAML: meta-learn a start and a rate for every weight, adapt along a stream.

    Args:
        model: the network; it sees one example at a time, and all of it adapts.
        inner_lr: where all entries of alpha start.
        inner_steps: steps on each example of the support set, in its order.
        first_order: take inner gradients as constants, as the authors' code does; the
            rates have a gradient all the same.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the stream.

    Returns: a `MetaLearner`; `params` are a `LaMAML`, `adapted` the model's parameters.
        Training descends the mean over the steps, `loss` is that of the last one.
    Raises: ValueError for a negative `inner_lr`, `inner_steps` below 1, or an adjoint that
        gives no gradient for rates (`FirstOrder`).

    >>> import jax, jaxmeta as jm
    >>> learner = la_maml(jm.models.mlp(2, 2, (4,)))
    >>> params = learner.init(jax.random.key(0))
    >>> batch = jm.Batch(jax.numpy.eye(2), jax.numpy.array([0, 1]))
    >>> value, _ = learner.objective(params, jm.Task(batch, batch), None, 0)
    >>> value.shape
    ()
    """
    checks.check_models(model=model)
    checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_flags(first_order=first_order)
    answer = one_by_one(model)

    def rule(alpha):
        constant = jax.lax.stop_gradient if first_order else lambda g: g
        return optax.stateless(lambda g, w: _against(alpha, constant(g)))

    descend = inner.descent(
        "la_maml",
        along(lambda w, context, x: answer(w, x), loss),
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        learns=("start", "rule"),
        least=1,
    )

    def init(key):
        theta = model.init(key)
        return LaMAML(theta, jax.tree.map(lambda w: jnp.full_like(w, inner_lr), theta))

    def walked(params, support, **more):
        rates = {"hyper": params.alpha, **more}
        return walk(descend, inner_steps, params.theta, (), support, **rates)

    def adapt(params, support, key=None):
        del key  # deterministic
        return walked(params, support)

    def predict(adapted, inputs, mask=None):
        del mask  # each input is seen alone
        return answer(adapted, inputs)

    judge = query_metrics(predict, loss)

    def objective(params, task: Task, key, step):
        del key, step
        path = walked(params, task.support, trajectory=True)
        values, metrics = jax.vmap(lambda w: judge(w, task))(path)
        counts = jnp.repeat(counting(task.support), inner_steps).astype(values.dtype)
        value = jnp.sum(values * counts) / jnp.sum(counts)
        return value, jax.tree.map(lambda a: a[-1], metrics)

    return MetaLearner(
        init, adapt, predict, query_loss(adapt, predict, loss), objective
    )
