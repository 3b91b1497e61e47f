"""Agents for Bernoulli bandits that learn nothing beforehand, to be beaten or imitated.

Each is made of `arms` and gives an `Agent` without parameters, (), for
`jm.evaluate_returns`.
What an agent remembers is how often each arm has paid and failed, [arms, 2]; its value is
said to be 0, and those that draw no action have log-probability 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.baselines.gittins import gittins_indices


def random_arm(arms: int) -> Agent:
    """Pulls any arm, each as often.

    >>> agent = random_arm(arms=2)
    >>> agent.begin(()).shape
    (2, 2)
    """
    logs = -jnp.log(jnp.full(arms, float(arms)))
    return _agent(arms, lambda counts, key: jax.random.gumbel(key, (arms,)), logs)


def greedy(arms: int) -> Agent:
    """Pulls the arm of the largest posterior mean under a uniform prior.

    >>> from jaxmeta.rollouts import Last
    >>> lost = Last(action=jnp.array(0), reward=jnp.array(0.0), done=jnp.array(0.0))
    >>> agent = greedy(arms=2)
    >>> memory, action, _, _ = agent.act((), agent.begin(()), None, lost, jax.random.key(0))
    >>> memory.tolist(), int(action)  # arm 0 has failed once, so arm 1
    ([[0.0, 1.0], [0.0, 0.0]], 1)
    """
    return _agent(arms, lambda counts, key: (counts[:, 0] + 1) / (_pulled(counts) + 2))


def ucb1(arms: int, constant: float = 2.0) -> Agent:
    """Each arm once, then that of the largest mean + sqrt(constant log t / n).

    Args: constant: 2 has a proof of logarithmic regret; a smaller one is better on
        average, about 0.1 for 100 pulls of 5 arms.

    Raises: ValueError for arms below 1, or a negative constant.

    Source: Auer, Cesa-Bianchi, Fischer. Finite-time Analysis of the Multiarmed Bandit
    Problem. 2002, figure 1.

    >>> ucb1(arms=3, constant=0.1).begin(()).shape
    (3, 2)
    """
    checks.check_numbers(least=0, constant=constant)

    def score(counts, key):
        del key
        n = _pulled(counts)
        log_t = jnp.log(jnp.maximum(jnp.sum(n), 1))
        bound = counts[:, 0] / jnp.maximum(n, 1) + jnp.sqrt(
            constant * log_t / jnp.maximum(n, 1)
        )
        return jnp.where(n > 0, bound, jnp.inf)

    return _agent(arms, score)


def thompson(arms: int) -> Agent:
    """Draws chances from the posterior under a uniform prior, pulls the best of them.

    How likely its action was is an integral that it need not solve: its log-probability
    is NaN. Source: Thompson 1933; Chapelle, Li. An Empirical Evaluation of Thompson
    Sampling. NeurIPS 2011, algorithm 2.

    >>> thompson(arms=3).begin(()).shape
    (3, 2)
    """

    def score(counts, key):
        return jax.random.beta(key, counts[:, 0] + 1, counts[:, 1] + 1)

    return _agent(arms, score, jnp.full(arms, jnp.nan))


def gittins(arms: int, pulls: int) -> Agent:
    """Pulls the arm of the largest index, see `gittins_indices`.

    Args: arms; pulls: of one task, in one or several episodes; after them, greedy.

    >>> gittins(arms=3, pulls=10).begin(()).shape
    (3, 2)
    """
    indices = jnp.asarray(gittins_indices(pulls), jnp.float32)

    def score(counts, key):
        del key
        left = jnp.maximum(pulls - jnp.sum(counts), 1)
        left, wins, losses = (a.astype(int) for a in (left, counts[:, 0], counts[:, 1]))
        return indices[left, wins, losses]

    return _agent(arms, score)


def _pulled(counts: jax.Array) -> jax.Array:
    return jnp.sum(counts, axis=-1)


def _agent(arms: int, score: Callable, logs: jax.Array | None = None) -> Agent:
    """Pulls the arm of the largest score (counts, key) -> [arms]; logs: log-probabilities."""
    checks.check_sizes(arms=arms)
    logs = jnp.zeros(arms) if logs is None else logs

    def act(adapted, counts, obs, last, key):
        del adapted, obs
        pulled = jax.nn.one_hot(last.action, arms)  # zeros for -1, before the first
        counts = counts + jnp.outer(pulled, jnp.stack([last.reward, 1 - last.reward]))
        action = jnp.argmax(score(counts, key)).astype(jnp.int32)
        return counts, action, logs[action], jnp.zeros(())

    none = lambda *given: ()
    return Agent(none, none, lambda adapted: jnp.zeros((arms, 2)), act)
