"""Metric learners: wrong arguments get a sentence."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


BAD = [
    (lambda: jm.protonet(IDENTITY, distance="manhattan"), "distance: expected one of"),
    (lambda: jm.protonet(IDENTITY, scale=0.0), "scale: expected a number > 0, got 0"),
    (lambda: jm.matching(IDENTITY, processing_steps=0), "processing_steps: expected"),
    (lambda: jm.meta_baseline(IDENTITY, temperature=-1.0), "temperature: .*> 0, got -1"),
    (lambda: jm.feat(IDENTITY, heads=5), "heads: expected a divisor of the"),
    (lambda: jm.deepemd(IDENTITY, regularization=0.0), "regularization: .* > 0, got 0"),
    (lambda: jm.baseline(IDENTITY, classes=1), "classes: expected a whole number >= 2"),
    (lambda: jm.simpleshot(IDENTITY, classes=4, transform="L1"), "one of UN, L2N, CL2N"),
    (lambda: jm.tim(IDENTITY, classes=4, tau=0.0), "tau: expected a number > 0"),
    (lambda: jm.tim(IDENTITY, classes=4, entropy_weight=-1.0), "entropy_weight: .*>= 0"),
    (lambda: jm.laplacian_shot(IDENTITY, classes=4, smoothness=-1.0), "smoothness: .*>= 0"),
    (lambda: jm.pt_map(IDENTITY, classes=4, alpha=1.5), r"alpha: .* \(0, 1\], got 1.5"),
    (lambda: jm.bd_cspn(IDENTITY, classes=4, epsilon=0.0), "epsilon: expected a number"),
    (lambda: jm.label_propagation(IDENTITY, alpha=1.0), r"alpha: .*\(0, 1\), got 1.0"),
    (lambda: jm.soft_kmeans(IDENTITY, variant="hard"), "one of plain, cluster, masked"),
    (lambda: jm.relation(IDENTITY, IDENTITY, ways=1), "ways: expected a whole number"),
    (lambda: jm.with_noise(jm.protonet, IDENTITY), "no noisy forward pass"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_bad_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_bad_unlabelled_sets_are_refused():
    learner = jm.soft_kmeans(IDENTITY, ways=WAYS)
    params = learner.init(jax.random.key(0))
    with pytest.raises(ValueError, match="the unlabelled set is empty; sample tasks"):
        learner.adapt(params, TASK.support)
    nothing = TASK.support._replace(y=np.full(6, -1))
    with pytest.raises(ValueError, match="every example is unlabelled"):
        learner.adapt(params, nothing)
    some = TASK.support._replace(y=np.where(np.arange(6) == 0, -1, TASK.support.y))
    with pytest.raises(ValueError, match=r"got \[-1\]; .* for soft_kmeans"):
        jm.protonet(IDENTITY, ways=WAYS).adapt((), some)
