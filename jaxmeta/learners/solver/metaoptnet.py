"""MetaOptNet: a support vector machine, or a ridge regression, on learned features.

Lee, Maji, Ravichandran, Soatto. Meta-Learning with Differentiable Convex Optimization.
CVPR 2019, arXiv 1904.03758. The SVM is Crammer and Singer's (eqs. 5-7); its dual, with
the features f_n of support example n and K their inner products, is

    max_alpha  -1/2 sum_k alpha_k' K alpha_k + sum_n alpha_{y_n, n}
    subject to  alpha_{k,n} <= C [k = y_n],   sum_k alpha_{k,n} = 0        (eq. 8)

    w_k = sum_n alpha_{k,n} f_n,   outputs_k(x) = gamma w_k . f(x)         (eqs. 7, 11)

The dual is solved by an interior-point method; its derivative is implicit, from the
optimality conditions at the solution (eqs. 9-10), whatever steps led there.

Departures:
- gamma starts at 10; the authors' at 1.
- Ridge outputs fit one-hot labels; the authors' code doubles them, which gamma makes up
  for.
- The loss is plain cross-entropy; the authors' has label smoothing of 0.1 on
  miniImageNet.

Meta-parameters: those of the encoder f, and the scale gamma.
"""

from functools import partial
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import embed_support, flat, mask_absent_classes, precise
from jaxmeta.learners.objectives import query_metrics
from jaxmeta.learners.registry import register
from jaxmeta.learners.solver.r2d2 import ridge
from jaxmeta.types import MetaLearner, Model, PyTree


class MetaOptNetParams(NamedTuple):
    """Meta-parameters of MetaOptNet."""

    encoder: PyTree
    gamma: jax.Array  # []


class Machine(NamedTuple):
    """An adapted MetaOptNet."""

    params: MetaOptNetParams
    w: jax.Array  # [features, ways]
    shots: jax.Array  # [ways]
    unsolved: jax.Array  # [] 1 where the solver did not reach the SVM's exact solution


def _newton(inverse, r, p):
    """(d alpha, d nu) with M_k d alpha_k + d nu = r_k and sum_k d alpha_k = p.

    inverse: [ways, n, n] of each M_k; r [ways, n]; p [n]. The sum over classes couples
    the ways blocks, and is eliminated first: S d nu = sum_k M_k^-1 r_k - p.
    """
    a = jnp.einsum("kij,kj->ki", inverse, r)
    total = jnp.sum(inverse, axis=0)
    # an example all of whose classes are fixed has no d nu
    total = total + jnp.diag((jnp.diag(total) == 0).astype(total.dtype))
    nu = jnp.linalg.solve(total, jnp.sum(a, axis=0) - p)
    return a - jnp.einsum("kij,j->ki", inverse, nu), nu


def _interior_point(gram, onehot, bound, iterations):
    """Mehrotra's predictor-corrector: alpha [ways, n], slack and multiplier of it."""
    alpha, nu = jnp.zeros_like(bound), jnp.zeros_like(bound[0])
    slack, z = jnp.ones_like(bound), jnp.ones_like(bound)

    def longest(value, change):  # a step that keeps value + step * change > 0
        ratio = jnp.where(change < 0, -value / jnp.where(change < 0, change, 1), 1.0)
        return jnp.minimum(1.0, 0.99 * jnp.min(ratio))

    def step(_, carry):
        alpha, nu, slack, z = carry
        dual = alpha @ gram - onehot + nu[None, :] + z
        primal = alpha + slack - bound
        weights = jax.vmap(jnp.diag)(z / slack)
        inverse = jnp.linalg.inv(gram[None] + weights)

        def direction(target):  # slack z + changes -> target
            r = -dual - (target - slack * z + z * primal) / slack
            d_alpha, d_nu = _newton(inverse, r, -jnp.sum(alpha, axis=0))
            d_slack = -primal - d_alpha
            d_z = (target - slack * z - z * d_slack) / slack
            return d_alpha, d_nu, d_slack, d_z

        mu = jnp.mean(slack * z)
        _, _, d_slack, d_z = direction(0.0)
        size = jnp.minimum(longest(slack, d_slack), longest(z, d_z))
        centre = jnp.mean((slack + size * d_slack) * (z + size * d_z)) / mu
        changes = direction(mu * centre**3 - d_slack * d_z)
        size = jnp.minimum(longest(slack, changes[2]), longest(z, changes[3]))
        new = [a + size * d for a, d in zip(carry, changes, strict=True)]
        # At the solution, rounding may spoil a step: then stay.
        fine = jnp.isfinite(sum(jnp.sum(a) for a in new))
        return [jnp.where(fine, a, b) for a, b in zip(new, carry, strict=True)]

    alpha, _, slack, z = jax.lax.fori_loop(0, iterations, step, [alpha, nu, slack, z])
    return alpha, slack, z


def svm_dual(
    gram: jax.Array,
    onehot: jax.Array,
    penalty: jax.Array | float,
    iterations: int = 15,
) -> tuple[jax.Array, jax.Array]:
    """The dual of Crammer and Singer's multi-class SVM without intercept (eq. 8).

    Differentiable in `gram`, implicitly. The last step solves for the variables that are
    not at their bounds exactly, so more iterations change nothing once those are found.
    That they were found is checked, by the optimality conditions.

    Args:
        gram: K [n, n], positive definite (add a little to the diagonal if need be).
        onehot: [n, ways], one-hot labels; a row of 0 (padding) gets alpha = 0.
        penalty: C > 0. iterations: of the interior-point method.

    Returns: alpha [ways, n]; whether it is the exact solution, [] bool. Where it is not,
        alpha is the interior point.
    """
    # alpha = C a: with bounds of 1 the method starts near the solution for any C
    a, solved = cast(tuple, _unit_dual(penalty * gram, onehot, iterations))
    return penalty * a, solved


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unit_dual(gram, onehot, iterations):
    alpha, _, solved = _solve(gram, onehot, iterations)
    return alpha, solved


def _solve(gram, onehot, iterations):
    """alpha, and M^-1 of its derivative: of the exact solution if the variables at their
    bounds were found, else of the interior point, which is near it on the central path."""
    onehot = jax.lax.stop_gradient(onehot.T).astype(gram.dtype)
    padding = jnp.sum(onehot, axis=0) == 0  # bounds of 1: 0 is then within them
    bound = jnp.where(padding[None, :], 1.0, onehot).astype(gram.dtype)
    inside, slack, z = _interior_point(gram, onehot, bound, iterations)
    free = (slack > z).astype(gram.dtype)  # [ways, n] not at the bound
    exact = _restricted_inverse(gram, free)
    fixed = (1 - free) * bound
    alpha, nu = _newton(exact, onehot - fixed @ gram, -jnp.sum(fixed, axis=0))
    alpha = alpha * free + fixed
    worst = violation(gram, onehot, bound, alpha, nu, free)
    solved = worst < 1e4 * jnp.finfo(gram.dtype).eps
    smooth = jnp.linalg.inv(gram[None] + jax.vmap(jnp.diag)(z / slack))
    inverse = jnp.where(solved, exact, smooth)
    return jnp.where(solved, alpha, inside), inverse, solved


def violation(gram, onehot, bound, alpha, nu, free):
    """The largest violation of the optimality conditions by a solution on a guess of
    which variables are free: of the bounds there, of the multipliers' signs elsewhere."""
    multiplier = onehot - alpha @ gram - nu[None, :]
    worst = jnp.where(free > 0, alpha - bound, -multiplier)
    return jnp.max(worst)


def _restricted_inverse(gram, free):
    """Of the rows and columns that are free, zero elsewhere: [ways, n, n]."""
    both = free[:, :, None] * free[:, None, :]
    rest = jax.vmap(jnp.diag)(1 - free)
    return jnp.linalg.inv(gram[None] * both + rest) * both


def _forward(gram, onehot, iterations):
    alpha, inverse, solved = _solve(gram, onehot, iterations)
    return (alpha, solved), (alpha, inverse, onehot)


def _backward(iterations, residuals, v):
    """d alpha_k = -M_k^-1 dK alpha_k, their sums unchanged."""
    del iterations
    alpha, inverse, onehot = residuals
    u, _ = _newton(inverse, v[0], jnp.zeros_like(alpha[0]))
    gram = -jnp.einsum("ki,kj->ij", u, alpha)
    return (gram + gram.T) / 2, jnp.zeros_like(onehot)


_unit_dual.defvjp(_forward, _backward)


@register(
    paper="Lee et al. 2019, arXiv 1904.03758",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def metaoptnet(
    model: Model,
    *,
    ways: int = 5,
    head: Literal["svm", "ridge"] = "svm",
    penalty: float | None = None,
    diagonal: float = 1.0,
    iterations: int = 15,
) -> MetaLearner:
    """MetaOptNet: a convex classifier on learned features, differentiated implicitly.

    Args:
        model: the encoder f, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        head: "svm" (multi-class, Crammer and Singer) or "ridge" (on one-hot labels).
        penalty: C of the SVM, by default 0.1, or lambda of the ridge, by default 50.
        diagonal: what is added to the diagonal of the SVM's K, as in the authors' code;
            > 0 so that the solution is unique.
        iterations: of the SVM's solver.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples. The metric `unsolved` is 1 for a task whose SVM was not
        solved exactly (more iterations may do it).
    Raises: ValueError for fewer than 2 ways, another head, penalty or diagonal <= 0,
        iterations below 1.
    """
    model = flat(model)
    checks.check_sizes(2, ways=ways)
    checks.check_choice("head", head, ("svm", "ridge"))
    c = penalty if penalty is not None else {"svm": 0.1, "ridge": 50.0}[head]
    checks.check_positive(penalty=c)
    checks.check_positive(diagonal=diagonal)
    checks.check_sizes(iterations=iterations)

    def init(key):
        # outputs of both heads lie within about 0..1, whatever the features: with 1, as
        # the authors have it, the classes would start with nearly equal probabilities
        return MetaOptNetParams(model.init(key), jnp.full((), 10.0, jnp.float32))

    def adapt(params, support, key=None):
        del key  # deterministic
        f, onehot = embed_support(model, params.encoder, support, ways)
        shots = jnp.sum(onehot, axis=0)
        if head == "ridge":
            return Machine(params, ridge(f, onehot, c), shots, jnp.zeros_like(shots[0]))
        f = precise(f)
        gram = f @ f.T + diagonal * jnp.eye(len(f), dtype=f.dtype)
        alpha, solved = svm_dual(gram, onehot, c, iterations)
        return Machine(params, f.T @ alpha.T, shots, 1 - solved.astype(f.dtype))

    def predict(adapted, inputs, mask=None):
        params, w, shots, _ = adapted
        logits = params.gamma * (forward(model, params.encoder, inputs, mask) @ w)
        return mask_absent_classes(logits, shots)

    judge = query_metrics(predict, losses.cross_entropy)

    def loss(params, task, key=None):
        adapted = adapt(params, task.support, key)
        value, metrics = judge(adapted, task)
        return value, metrics | {"unsolved": adapted.unsolved}

    return MetaLearner(init, adapt, predict, loss)
