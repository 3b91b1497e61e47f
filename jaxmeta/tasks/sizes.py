"""How many ways, shots and queries an episode has: fixed, or drawn for each.

Meta-Dataset's distribution: Triantafillou et al. Meta-Dataset: A Dataset of Datasets for
Learning to Learn from Few Examples. ICLR 2020, arXiv 1903.03096, section 3.2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks

Range = int | tuple[int, int]


class Drawn(NamedTuple):
    """Sizes of one episode; a class that is no part of it has 0 of each."""

    support: jax.Array  # [ways] examples of each class
    query: jax.Array  # [ways]


@dataclass(frozen=True)
class Fixed:
    """As many of each class in every episode: nothing is padded."""

    ways: int
    shots: int
    queries: int

    @property
    def support(self) -> int:
        """Places of the support set."""
        return self.ways * self.shots

    @property
    def query(self) -> int:
        """Places of the query set."""
        return self.ways * self.queries

    @property
    def each(self) -> int:
        """The most examples of a class."""
        return self.shots + self.queries

    @property
    def wanted(self) -> tuple[int, int]:
        """Support and query examples that a class must have."""
        return self.shots, self.queries

    def draw(self, key: jax.Array, counts: jax.Array) -> Drawn:
        """The same for every key."""
        full = lambda n: jnp.full(self.ways, n, jnp.int32)
        return Drawn(full(self.shots), full(self.queries))


@dataclass(frozen=True)
class Varied:
    """Ways and shots uniform in their ranges, ends included.

    imbalanced: each class draws its own shots. A class with too few examples for the
    shots drawn gives what its query examples leave; least: shots that it must have, None =
    the fewest of the range.
    """

    way_range: tuple[int, int]
    shot_range: tuple[int, int]
    queries: int
    imbalanced: bool
    least: int | None = None

    @property
    def ways(self) -> int:
        """The most."""
        return self.way_range[1]

    @property
    def support(self) -> int:
        """Places of the support set."""
        return self.ways * self.shot_range[1]

    @property
    def query(self) -> int:
        """Places of the query set."""
        return self.ways * self.queries

    @property
    def each(self) -> int:
        """The most examples of a class."""
        return self.shot_range[1] + self.queries

    @property
    def wanted(self) -> tuple[int, int]:
        """Support and query examples that a class must have."""
        return self.least or self.shot_range[0], self.queries

    def draw(self, key: jax.Array, counts: jax.Array) -> Drawn:
        """Ways, then shots; counts [ways]: examples that the classes have."""
        key_ways, key_shots = jax.random.split(key)
        low, high = self.way_range
        part = jnp.arange(self.ways) < jax.random.randint(key_ways, (), low, high + 1)
        low, high = self.shot_range
        shape = (self.ways,) if self.imbalanced else (1,)
        shots = jax.random.randint(key_shots, shape, low, high + 1)
        shots = jnp.minimum(shots, counts - self.queries)
        return Drawn(jnp.where(part, shots, 0), jnp.where(part, self.queries, 0))


@dataclass(frozen=True)
class MetaDataset:
    """Meta-Dataset's ways and shots, see the module: imbalanced as the data are.

    way_range: of the uniform number of ways. most: places of the support set; a class
    adds at most `contribution` to its size. queries: of a class, at most; log_weight:
    range of the noise on the classes' frequencies, uniform in the logarithm.

    Departures: classes are drawn uniformly; for ImageNet and Omniglot the authors choose
    them along a hierarchy (`within_groups` does so by alphabet).
    """

    way_range: tuple[int, int] = (5, 50)
    most: int = 500
    contribution: int = 100
    queries: int = 10
    log_weight: tuple[float, float] = (-0.6931471805599453, 0.6931471805599453)

    @property
    def ways(self) -> int:
        """The most."""
        return self.way_range[1]

    @property
    def support(self) -> int:
        """Places of the support set."""
        return self.most

    @property
    def query(self) -> int:
        """Places of the query set."""
        return self.ways * self.queries

    @property
    def each(self) -> int:
        """The most examples of a class."""
        return self.most + self.queries

    @property
    def wanted(self) -> tuple[int, int]:
        """Support and query examples that a class must have."""
        return 1, 1

    def draw(self, key: jax.Array, counts: jax.Array) -> Drawn:
        """Appendix of the paper: ways, queries, the support set's size, then its shares."""
        key_ways, key_size, key_weight = jax.random.split(key, 3)
        low, high = self.way_range
        ways = jax.random.randint(key_ways, (), low, high + 1)
        part = jnp.arange(self.ways) < ways
        fewest = jnp.min(jnp.where(part, counts, jnp.iinfo(counts.dtype).max))
        q = jnp.minimum(self.queries, fewest // 2)
        left = counts - q
        beta = jax.random.uniform(key_size)
        shares = jnp.floor(beta * jnp.minimum(self.contribution, left) + 1)
        size = jnp.minimum(jnp.sum(jnp.where(part, shares, 0)), self.most)
        low, high = self.log_weight
        noise = jax.random.uniform(key_weight, counts.shape, minval=low, maxval=high)
        weight = jnp.where(part, counts * jnp.exp(noise), 0)
        share = weight / jnp.sum(weight)
        shots = jnp.floor(share * (size - ways)).astype(jnp.int32) + 1
        shots = jnp.minimum(shots, left)
        return Drawn(jnp.where(part, shots, 0), jnp.where(part, q, 0))


Sizes = Fixed | Varied | MetaDataset


def sizes_of(ways: Range, shots: Range, queries: int, imbalanced: bool) -> Sizes:
    """What numbers and ranges mean. Raises: ValueError for sizes below 1 (ways: 2), a
    range whose ends are the wrong way round, `imbalanced` without a range of shots."""
    checks.check_flags(imbalanced=imbalanced)
    checks.check_sizes(queries=queries)
    varied = [isinstance(value, (tuple, list)) for value in (ways, shots)]
    way_range, shot_range = (
        fewest_and_most(2, ways=ways),
        fewest_and_most(1, shots=shots),
    )
    if imbalanced and not varied[1]:
        raise ValueError(
            f"imbalanced: each class draws its own shots from a range, got {shots}; give "
            "shots=(fewest, most)"
        )
    if not any(varied):
        return Fixed(way_range[1], shot_range[1], queries)
    return Varied(way_range, shot_range, queries, imbalanced)


def fewest_and_most(least: int, **value) -> tuple[int, int]:
    """A number or (fewest, most) as the latter, of one argument by its name.

    Raises: ValueError for anything else, for less than `least`, or ends the wrong way round.
    """
    ((name, given),) = value.items()
    if not isinstance(given, (tuple, list)):
        given = given, given
    if len(given) != 2:
        raise ValueError(
            f"{name}: expected a whole number or (fewest, most), got {given}"
        )
    checks.check_sizes(least, **{name: given[0]})
    checks.check_sizes(**{name: given[1]})
    if given[1] < given[0]:
        raise ValueError(
            f"{name}: expected a whole number >= {given[0]}, got {given[1]}; a pair is "
            "(fewest, most) with fewest <= most"
        )
    return int(given[0]), int(given[1])
