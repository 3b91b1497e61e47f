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

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward, precise
from jaxmeta.learners.features import embed_support, flat, mask_absent_classes
from jaxmeta.learners.objectives import query_metrics
from jaxmeta.learners.registry import register
from jaxmeta.solvers import ridge, svm_dual
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


@register(
    paper="Lee et al. 2019, arXiv 1904.03758",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def metaoptnet(
    encoder: Model,
    *,
    ways: int = 5,
    head: Literal["svm", "ridge"] = "svm",
    penalty: float | None = None,
    diagonal: float = 1.0,
    iterations: int = 15,
) -> MetaLearner:
    """MetaOptNet: a convex classifier on learned features, differentiated implicitly.

    Args:
        encoder: the encoder f, inputs -> [examples, features].
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
    encoder = flat(encoder)
    checks.check_sizes(2, ways=ways)
    checks.check_choice("head", head, ("svm", "ridge"))
    c = penalty if penalty is not None else {"svm": 0.1, "ridge": 50.0}[head]
    checks.check_positive(penalty=c)
    checks.check_positive(diagonal=diagonal)
    checks.check_sizes(iterations=iterations)

    def init(key):
        # outputs of both heads lie within about 0..1, whatever the features: with 1, as
        # the authors have it, the classes would start with nearly equal probabilities
        return MetaOptNetParams(encoder.init(key), jnp.full((), 10.0, jnp.float32))

    def adapt(params, support, key=None):
        del key  # deterministic
        f, onehot = embed_support(encoder, params.encoder, support, ways)
        shots = jnp.sum(onehot, axis=0)
        if head == "ridge":
            return Machine(params, ridge(f, onehot, c), shots, jnp.zeros_like(shots[0]))
        f = precise(f)
        gram = f @ f.T + diagonal * jnp.eye(len(f), dtype=f.dtype)
        alpha, solved = svm_dual(gram, onehot, c, iterations)
        return Machine(params, f.T @ alpha.T, shots, 1 - solved.astype(f.dtype))

    def predict(adapted, inputs, mask=None):
        params, w, shots, _ = adapted
        logits = params.gamma * (forward(encoder, params.encoder, inputs, mask) @ w)
        return mask_absent_classes(logits, shots)

    judge = query_metrics(predict, losses.cross_entropy)

    def loss(params, task, key=None):
        adapted = adapt(params, task.support, key)
        value, metrics = judge(adapted, task)
        return value, metrics | {"unsolved": adapted.unsolved}

    return MetaLearner(init, adapt, predict, loss)
