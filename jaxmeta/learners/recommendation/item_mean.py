"""What everybody thinks of an item, and how much a user likes things in general.

The baseline of every table of recommenders: Koren. Factor in the Neighbors: Scalable and
Accurate Collaborative Filtering. TKDD 2010, section 2.1, biases shrunk to the mean:

    m_i = (sum of the ratings of i + k m) / (number of them + k),  m the overall mean
    b_u = (sum over the support of (y - m_i)) / (number of them + s)
    y(u, i) = m_i + b_u

Departure: the paper fits m_i and b_u together by gradient descent; here m_i is of all
users together, or in closed form in turn with b_u (`item_means(user=...)`).

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

ROUNDS = 20  # of item means and users' biases, each of what the other leaves


class ItemMeans(NamedTuple):
    """Meta-parameters of `item_mean`."""

    mean: jax.Array  # [items]


class Biased(NamedTuple):
    """An adapted `item_mean`."""

    mean: jax.Array  # [items]
    bias: jax.Array  # [], of the user


def item_means(
    item: Any,
    rating: Any,
    items: int,
    *,
    user: Any = None,
    shrinkage: float = 5.0,
    user_shrinkage: float = 3.0,
) -> ItemMeans:
    """The mean rating of each item, with some ratings of the overall mean beside.

    Args:
        item: [n] numbers of items. rating: [n] or [n, 1], what each was given.
        items: how many there are; the mean of one without a rating is the overall mean.
        user: [n] numbers of who rated; then m_i are of what users' biases leave, and biases
        of what the m_i leave, in turn. None = users are all alike.
        shrinkage: k, ratings of the overall mean that each item has besides.
        user_shrinkage: s, as in `item_mean`.

    Returns: the meta-parameters of `item_mean`.
    Raises: ValueError for arrays of different lengths, an item out of range, a negative
        shrinkage.

    >>> item_means(jnp.array([0, 0, 2]), jnp.array([5.0, 4.0, 3.0]), 3).mean.tolist()
    [4.142857074737549, 4.0, 3.8333332538604736]
    """
    checks.check_sizes(items=items)
    checks.check_numbers(least=0, shrinkage=shrinkage, user_shrinkage=user_shrinkage)
    item, rating = checks.to_array("item", item), checks.to_array("rating", rating)
    if item.ndim != 1 or rating.shape not in ((len(item),), (len(item), 1)):
        raise ValueError(
            "item, rating: expected numbers of items [n] and a rating for each, got "
            f"shapes {item.shape} and {rating.shape}"
        )
    _check_numbers("item", item)
    checks.check_sizes(int(item.max()) + 1, items=items)
    overall, left = rating.mean(), rating.reshape(-1) - rating.mean()
    means = _shrunk(item, left, items, shrinkage)
    if user is not None:
        user = checks.to_array("user", user)
        _check_numbers("user", user)
        if user.shape != item.shape:
            raise ValueError(
                f"user: expected a number for each rating, {item.shape}, got {user.shape}"
            )
        for _ in range(ROUNDS):
            biases = _shrunk(
                user, left - means[item], int(user.max()) + 1, user_shrinkage
            )
            means = _shrunk(item, left - biases[user], items, shrinkage)
    return ItemMeans(jnp.asarray(overall + means))


def _shrunk(
    group: np.ndarray, values: np.ndarray, groups: int, more: float
) -> np.ndarray:
    """[groups] means of the values of each, with `more` zeros beside them."""
    total = np.bincount(group, values, groups)
    return total / np.maximum(np.bincount(group, minlength=groups) + more, 1e-9)


def _check_numbers(argument: str, numbers: np.ndarray) -> None:
    if numbers.dtype.kind not in "iu" or not numbers.size or numbers.min() < 0:
        raise ValueError(
            f"{argument}: expected whole numbers from 0, got {checks.said(numbers)}"
        )


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
