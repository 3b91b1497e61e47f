"""Bayesian MAML: a posterior over a task's weights, as particles that repel each other.

Yoon, Kim, Dia, Kim, Bengio, Ahn. Bayesian Model-Agnostic Meta-Learning. NeurIPS 2018,
arXiv 1806.03836. Each inner step is one of Stein variational gradient descent (eq. 4):

    theta_m <- theta_m + eps phi(theta_m)
    phi(theta) = 1/M sum_j [ k(theta_j, theta) grad log p(theta_j)
                             + grad_{theta_j} k(theta_j, theta) ]

and the outer objective is the chaser loss (eq. 8): particles after n steps on the support
set chase those after s more steps on support and query set, which are constants.

Departures:
- There is no prior, log p is minus the sum of losses; the authors' code (regression)
  has a normal prior, and its precision and the noise's in each particle.
- A step is inner_lr / n; the authors' code multiplies gradients of the sum by its rate.
- k = exp(-|.|^2 / h) with h = median / log(M + 1), differentiated; the authors' code
  has log M, and takes h as a constant.
- The repulsion is the gradient of k; in the authors' code it is half of that.

Meta-parameters: Theta_0, the model's parameters M times.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import concatenate, examples, forward
from jaxmeta.learners.objectives import query_loss, query_metrics, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, Task


def _svgd(hyper) -> optax.GradientTransformation:
    """Particles [M, ...] from gradients of the mean loss of n examples: log p = -n L, and
    the step eps is inner_lr / n. One particle moves as in MAML; M that are far apart move
    by about 2 / (M + 1) of that, since the kernel averages over all of them."""
    inner_lr, n = hyper

    def update(updates, state, params=None):
        flatten = jax.vmap(lambda tree: ravel_pytree(tree)[0])
        w, gradients = flatten(params), flatten(updates)  # [M, weights]
        m = len(w)
        apart = w[:, None, :] - w[None, :, :]
        squares = jnp.sum(jnp.square(apart), axis=-1)
        # the paper's bandwidth; for one particle, or equal ones, any positive number
        h = jnp.median(squares) / jnp.log(m + 1.0) + 1e-8
        k = jnp.exp(-squares / h)  # [M, M]
        # grad_{theta_j} k(theta_j, theta_m) = 2/h (theta_m - theta_j) k
        repulsion = 2 / h * jnp.sum(apart * k[:, :, None], axis=1)
        phi = (-k @ gradients + repulsion / n) / m
        unflatten = ravel_pytree(jax.tree.map(lambda a: a[0], updates))[1]
        return jax.vmap(unflatten)(inner_lr * phi), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@register(
    paper="Yoon et al. 2018, arXiv 1806.03836",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def bmaml(
    model: Model,
    *,
    particles: int = 5,
    inner_lr: float = 0.01,
    inner_steps: int = 1,
    leader_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """Bayesian MAML: learn where the particles of a posterior start.

    Args:
        model: the network; its parameters are all adapted.
        particles: M, copies of the network; 1 is MAML with the chaser loss.
        inner_lr: step size of adaptation; that of MAML for one particle, and the more
            particles, the larger it should be (the kernel averages over them).
        inner_steps: n, steps of adaptation.
        leader_steps: s, further steps of what is chased; with 0 training descends the query
            loss of the mean prediction in place of the chaser loss.
        loss: loss of one example, for adaptation and for judging.
        adjoint: how to differentiate through the inner loop.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters
        with a leading [particles] axis. `predict` gives the mean over particles: of
        probabilities, as log-probabilities, if loss is `cross_entropy`; else of outputs.
    Raises: ValueError for sizes below 1, a negative `leader_steps`, or as `maml`.
    """
    checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(particles=particles)
    checks.check_sizes(0, leader_steps=leader_steps)
    one = support_objective(model, loss)
    classify = losses.outputs_of(loss, "bmaml") == "logits"

    def objective(theta, context, batch):  # each particle gets its own gradient
        return jnp.sum(jax.vmap(one, (0, None, None))(theta, context, batch))

    descend = inner.descent(
        "bmaml", objective, steps=inner_steps, adjoint=adjoint, rule=_svgd, least=1
    )
    lead = replace(descend, steps=leader_steps)

    def hyper(batch):
        if batch.mask is None:
            return inner_lr, examples(batch)
        return inner_lr, jnp.maximum(jnp.sum(batch.mask > 0), 1)

    def init(key):
        return jax.vmap(model.init)(jax.random.split(key, particles))

    def adapt(params, support, key=None):
        del key  # deterministic
        return descend(params, (), support, hyper=hyper(support))

    def predict(adapted, inputs, mask=None):
        outputs = jax.vmap(lambda p: forward(model, p, inputs, mask))(adapted)
        if not classify:
            return jnp.mean(outputs, axis=0)
        logs = jax.nn.log_softmax(outputs, axis=-1)
        return jax.nn.logsumexp(logs, axis=0) - jnp.log(1.0 * particles)

    judge = query_metrics(predict, loss)

    def chaser_loss(params, task: Task, key, step):
        del step
        chaser = adapt(params, task.support, key)
        everything = concatenate(task.support, task.query)
        start = jax.lax.stop_gradient(chaser)
        leader = lead(start, (), everything, hyper=hyper(everything))
        leader = jax.lax.stop_gradient(leader)
        _, metrics = judge(chaser, task)
        distance = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), chaser, leader)
        return jnp.sum(jnp.stack(jax.tree.leaves(distance))), metrics

    test = query_loss(adapt, predict, loss)
    chased = chaser_loss if leader_steps else None
    return MetaLearner(init, adapt, predict, test, chased)
