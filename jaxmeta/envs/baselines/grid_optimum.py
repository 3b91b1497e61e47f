"""The optimum of a grid with a hidden goal, and posterior sampling in it.

size x size cells, start in a corner, the goal in any cell outside the start's 2x2 corner;
up, down, left, right or stay; +1 a step on the goal, -0.1 elsewhere. Zintgraf et al.
VariBAD, ICLR 2020, arXiv 1910.08348, section 5.1: 5x5, 15 steps, 4 episodes of one goal.

A goal first stood on in step t pays 1.1 (steps + 1 - t) more than never finding it, since
one stays. So before it is found an agent can only choose a path, and of a path only counts
when it comes to each possible goal.
"""

import numpy as np

from jaxmeta import checks

PENALTY, GAIN = -0.1, 1.1  # a step off the goal; what being on it adds
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])


def grid_optimum(size: int = 5, steps: int = 15, episodes: int = 4) -> np.ndarray:
    """Expected reward of each episode of the Bayes-optimal agent.

    No first episode is better than the best one for itself alone, and no later one than
    with the goal known. Both bounds are reached at once if a best first path leaves only
    goals that lie on one shortest path from the start: walking there, each is found as
    early as if it were known.

    Args: size: cells a side, whose states have to fit into 64 bits and into memory (5, 15:
        196,226 of them). steps: of an episode. episodes: of one goal.

    Returns: [episodes].
    Raises: ValueError for sizes out of range, or a grid where the bounds can't be shown to
        be reached.

    Of a 3x3 grid's 5 goals, around the far corner, all are passed in steps 2 to 6:

    >>> grid_optimum(size=3, steps=6, episodes=1)  # -0.6 + 1.1 (5 + 4 + 3 + 2 + 1) / 5
    array([2.7])
    """
    checks.check_sizes(3, 7, size=size)
    checks.check_sizes(steps=steps, episodes=episodes)
    first, leftovers = first_episode(size, steps)
    if episodes > 1 and not any(_on_one_shortest_path(cells) for cells in leftovers):
        raise ValueError(
            f"grid: every best first episode of size={size}, steps={steps} leaves goals "
            "that no single shortest path visits, so its optimum is not known here"
        )
    later = known_goal(size, steps)
    return np.array([first] + [later] * (episodes - 1))


def known_goal(size: int = 5, steps: int = 15) -> float:
    """Expected reward of an episode with the goal known: walk there and stay.

    >>> round(known_goal(), 3)
    11.071
    """
    distance = np.add(*np.nonzero(_goals(size)))
    return float(np.mean(steps * PENALTY + GAIN * np.maximum(steps + 1 - distance, 0)))


def first_episode(size: int = 5, steps: int = 15) -> tuple[float, list[np.ndarray]]:
    """The best expected reward of one episode, the goal unknown.

    Returns: it; what the best paths leave unvisited, each set of goals as cells [n, 2].
    """
    states, gained = _paths(size, steps)
    goals = np.argwhere(_goals(size))
    best = np.unique(states[gained == gained.max()] & (1 << len(goals)) - 1)
    reward = steps * PENALTY + GAIN * gained.max() / len(goals)
    bits = best[:, None] >> np.arange(len(goals)) & 1
    return float(reward), [goals[left == 1] for left in bits]


def _paths(size: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All states after so many moves, cell << goals | goals not visited yet, and the
    largest sum of (steps + 1 - t) over the goals found that leads to each."""
    goals = _goals(size).ravel()
    shift = goals.sum()
    bit = np.where(goals, 1 << (np.cumsum(goals) - 1), 0)
    states, gained = np.array([(1 << shift) - 1]), np.zeros(1, int)
    for t in range(1, steps + 1):
        cell, left = states >> shift, states & (1 << shift) - 1
        cell = _neighbours(size)[cell]  # [states, 4]
        found = left[:, None] & bit[cell]
        sums = gained[:, None] + (steps + 1 - t) * (found > 0)
        states, gained = _largest(cell << shift | left[:, None] ^ found, sums)
    return states, gained


def _largest(states: np.ndarray, gained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each state once, with the largest of its sums."""
    order = np.lexsort((-gained.ravel(), states.ravel()))
    states, gained = states.ravel()[order], gained.ravel()[order]
    first = np.append(True, states[1:] != states[:-1])
    return states[first], gained[first]


def _goals(size: int) -> np.ndarray:
    """[size, size], whether a cell may be the goal."""
    row, column = np.indices((size, size))
    return (row > 1) | (column > 1)


def _neighbours(size: int) -> np.ndarray:
    """[cells, 4], where a move leads; for one into a wall, where its opposite does."""
    cells = np.argwhere(np.ones((size, size)))
    moved = size - 1 - np.abs(size - 1 - np.abs(cells[:, None] + MOVES))
    return size * moved[..., 0] + moved[..., 1]


def _on_one_shortest_path(cells: np.ndarray) -> bool:
    """Whether one path that never turns back visits all cells [n, 2]."""
    ordered = cells[np.argsort(cells.sum(axis=1))]
    return bool(np.all(np.diff(ordered, axis=0) >= 0))
