"""Finite-horizon Gittins indices of a Bernoulli arm: what one arm alone is worth.

The index of an arm is the price per pull at which it just pays to start pulling it, if one
may stop at any time: with W the profit at price x and n pulls left (W with 0 left is 0),

    W(s, f, n) = max(0, p - x + p W(s+1, f, n-1) + (1-p) W(s, f+1, n-1)),  p = (s+1)/(s+f+2)

Pulling the arm of largest index is nearly, but not exactly, optimal for a finite horizon.
Lattimore. Regret Analysis of the Finite-Horizon Gittins Index Strategy. COLT 2016,
arXiv 1511.06014, for normal rewards; here they are 0 or 1, and the prior is uniform.
"""

import numpy as np

from jaxmeta import checks


def gittins_indices(pulls: int, *, prices: int = 201) -> np.ndarray:
    """Index of an arm by what is left to pull and what is known of it.

    Args:
        pulls: of one task.
        prices: on a grid over [0, 1]. The profit is exact there and nearly straight
            between two of them, so the error falls with their distance squared.

    Returns: [pulls + 1, pulls, pulls]: of pulls left (1..pulls), successes, failures; 0
        where there are more pulls than in a task.
    Raises: ValueError for pulls below 1, or prices below 2.

    With one pull left the index is the mean; with two, a success is followed up:

    >>> indices = gittins_indices(pulls=2)
    >>> indices[1, 0, 0].round(4), indices[2, 0, 0].round(4)  # 1/2, 5/9
    (np.float64(0.5), np.float64(0.5556))
    """
    checks.check_sizes(pulls=pulls)
    checks.check_sizes(2, prices=prices)
    price = np.linspace(0, 1, prices)
    indices = np.zeros((pulls + 1, pulls, pulls))
    profit = np.zeros((pulls + 1, pulls + 1, prices))
    for left in range(1, pulls + 1):
        n = pulls - left + 1  # 0..n-1 successes or failures
        s, f, _ = np.ogrid[:n, :n, :1]
        p = (s + 1) / (s + f + 2)
        going_on = p - price + p * profit[1:, :-1] + (1 - p) * profit[:-1, 1:]
        indices[left, :n, :n] = _zero(going_on, price)
        profit = np.maximum(going_on, 0)
    return indices


def _zero(falling: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Where [..., points] values that fall from above to below 0 cross it."""
    right = np.sum(falling > 0, axis=-1, keepdims=True)
    low = np.take_along_axis(falling, right, axis=-1)[..., 0]
    high = np.take_along_axis(falling, right - 1, axis=-1)[..., 0]
    right = right[..., 0]
    return x[right - 1] + (x[right] - x[right - 1]) * high / (high - low)
