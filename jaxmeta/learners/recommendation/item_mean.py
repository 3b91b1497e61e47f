"""What everybody thinks of an item, and how much a user likes things in general.

The baseline of every table of recommenders: Koren. Factor in the Neighbors: Scalable and
Accurate Collaborative Filtering. TKDD 2010, section 2.1, biases shrunk to the mean:

    m_i = (sum of the ratings of i + k m) / (number of them + k),  m the overall mean
    b_u = (sum over the support of (y - m_i)) / (number of them + s)
    y(u, i) = m_i + b_u

Departure: m_i is of all users together; the paper takes an item's deviation first and
the users' from it, or fits both by gradient descent.

Meta-parameters: m_i. `item_means` has them in closed form; training descends to others.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks, losses
from jaxmeta.batches import columns
from jaxmeta.learners.features import weights_of
from jaxmeta.learners.recommendation.judging import rating_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner


class ItemMeans(NamedTuple):
    """Meta-parameters of `item_mean`."""

    mean: jax.Array  # [items]


class Biased(NamedTuple):
    """An adapted `item_mean`."""

    mean: jax.Array  # [items]
    bias: jax.Array  # [], of the user


def item_means(
    item: Any, rating: Any, items: int, *, shrinkage: float = 5.0
) -> ItemMeans:
    """The mean rating of each item, with some ratings of the overall mean beside.

    Args:
        item: [n] numbers of items. rating: [n] or [n, 1], what each was given.
        items: how many there are; the mean of one without a rating is the overall mean.
        shrinkage: k, ratings of the overall mean that each item has besides.

    Returns: the meta-parameters of `item_mean`.
    Raises: ValueError for arrays of different lengths, an item out of range, a negative
        shrinkage.

    >>> item_means(jnp.array([0, 0, 2]), jnp.array([5.0, 4.0, 3.0]), 3).mean.tolist()
    [4.142857074737549, 4.0, 3.8333332538604736]
    """
    checks.check_sizes(items=items)
    checks.check_numbers(least=0, shrinkage=shrinkage)
    item, rating = (
        checks.to_array(n, a) for n, a in (("item", item), ("rating", rating))
    )
    if item.ndim != 1 or rating.shape not in ((len(item),), (len(item), 1)):
        raise ValueError(
            "item, rating: expected numbers of items [n] and a rating for each, got "
            f"shapes {item.shape} and {rating.shape}"
        )
    if item.dtype.kind not in "iu" or not len(item) or item.min() < 0:
        raise ValueError(
            f"item: expected whole numbers from 0, got {checks.said(item)}"
        )
    checks.check_sizes(int(item.max()) + 1, items=items)
    overall, left = rating.mean(), rating.reshape(-1) - rating.mean()
    total, number = np.bincount(item, left, items), np.bincount(item, minlength=items)
    means = overall + total / np.maximum(number + shrinkage, 1e-9)
    return ItemMeans(jnp.asarray(means))


@register(
    paper="Koren 2010, TKDD",
    learns=("recommendation",),
    networks=lambda n: [],
)
def item_mean(*, items: int = 1682, user_shrinkage: float | None = 3.0) -> MetaLearner:
    """The mean rating of an item, and a user's mean deviation from it.

    Args:
        items: how many there are, the number of an item is x["item"] [n].
        user_shrinkage: s, ratings without deviation that a user has besides those known;
            None = users have no bias.

    Returns: a `MetaLearner`; `predict` gives ratings [examples, 1]. Its params are
        `ItemMeans`, best those of `jm.item_means(item, rating, items)`. An item out of range
        gives NaN.
    Raises: ValueError for no item, a negative user_shrinkage.

    >>> import jaxmeta as jm
    >>> params = jm.item_means(jnp.array([0, 1]), jnp.array([2.0, 4.0]), 2, shrinkage=0)
    >>> learner = jm.item_mean(items=2, user_shrinkage=1)
    >>> support = jm.Batch({"item": jnp.array([0])}, jnp.array([[4.0]]))
    >>> learner.predict(learner.adapt(params, support), {"item": jnp.array([1])}).tolist()
    [[5.0]]
    """
    checks.check_sizes(items=items)
    if user_shrinkage is not None:
        checks.check_numbers(least=0, user_shrinkage=user_shrinkage)

    def init(key):
        del key
        return ItemMeans(jnp.zeros(items))

    def of(mean, inputs):
        """Of the items of inputs, [n]."""
        number = inputs["item"].astype(jnp.int32)
        within = jnp.where((number >= 0) & (number < items), 1.0, jnp.nan)
        return mean[jnp.clip(number, 0, items - 1)] * within.astype(mean.dtype)

    def adapt(params, support, key=None):
        del key  # deterministic
        left = columns(support.y)[:, 0] - of(params.mean, support.x)
        if user_shrinkage is None:
            return Biased(params.mean, jnp.zeros((), left.dtype))
        counts = weights_of(support.mask, left)
        total = jnp.sum(jnp.where(counts > 0, left, 0))
        least = jnp.maximum(jnp.sum(counts) + user_shrinkage, 1e-9).astype(left.dtype)
        return Biased(params.mean, total / least)

    def predict(adapted, inputs, mask=None):
        del mask
        return (of(adapted.mean, inputs) + adapted.bias)[:, None]

    return MetaLearner(init, adapt, predict, rating_loss(adapt, predict, losses.mse))
