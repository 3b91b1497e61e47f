"""Training with the network's own noise: dropout, DropBlock.

The key of the noise goes to the network with its inputs, as their tag. Support and query
set have different keys, and the inner loop has another at each step (`inner.Descent`), so
no two passes of a task see the same noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxmeta import checks
from jaxmeta.batches import untagged
from jaxmeta.outer import objective_of
from jaxmeta.types import Batch, MetaLearner, Model, PyTree, Tagged, Task

PASS = 0x6E6F6973  # apart from the numbers of inner steps, which are folded in as well


class Noise(NamedTuple):
    """What a noisy pass needs."""

    key: jax.Array
    step: jax.Array  # [] meta-steps done


def with_noise(make: Callable[[Model], MetaLearner], model: Model) -> MetaLearner:
    """A learner that is trained with its network's noise, and used without.

    Support and query set, and each inner step, see noise of their own. What is computed
    once for all inner steps (the features of `anil` and `leo`) has one noise for them.

    Args: make: model -> learner, e.g. `lambda m: jm.metaoptnet(m, ways=5)`; model: one
        with a `noisy` forward pass: `resnet12()`, or a Flax network with dropout.
    Returns: `make(model)` whose `objective`, which `fit` and `make_step` descend,
        draws new noise from the key of each task. Without a key there is none.
    Raises: ValueError for a model without noise; in training for a learner that gives its
        model other inputs than those of the task (neural processes).
    """
    checks.check_functions(make=make)
    checks.check_models(model=model)
    if model.noisy is None:
        raise ValueError(
            "with_noise: the model has no noisy forward pass; expected one like "
            "resnet12(), or a Flax network with dropout"
        )
    plain = make(model)
    noisy = make(Model(model.init, _Noisy(model.noisy), uses_mask=True))

    def loss(params, task, key, step):
        if key is None:
            return objective_of(plain)(params, task, None, step)
        key_support, key_query, key = jax.random.split(key, 3)
        task = Task(
            _tagged(task.support, Noise(key_support, step)),
            _tagged(task.query, Noise(key_query, step)),
        )
        return objective_of(noisy)(params, task, key, step)

    return plain._replace(objective=loss)


@dataclass(frozen=True)
class _Noisy:
    """The noisy pass as an `apply`; equal for equal networks."""

    noisy: Callable[..., Any]

    def __call__(self, params: PyTree, x: Tagged, mask=None):
        if not isinstance(x, Tagged) or not isinstance(x.tag, Noise):
            raise ValueError(
                "with_noise: this learner gives its model other inputs than those of the "
                "task; expected one that hands them on as they are, like maml or protonet"
            )
        key, step = x.tag
        n = len(jax.tree.leaves(untagged(x))[0])  # a joined batch: other noise
        key = jax.random.fold_in(jax.random.clone(key), PASS)
        return self.noisy(params, x.x, mask, jax.random.fold_in(key, n), step)


def _tagged(batch: Batch, noise: Noise) -> Batch:
    return batch._replace(x=Tagged(batch.x, noise))
