"""Few-shot tasks from examples without labels, for any learner.

UMTRA: Khodadadeh, Boloni, Shah. Unsupervised Meta-Learning for Few-Shot Image
Classification. NeurIPS 2019, arXiv 1811.11819, algorithm 1: random examples are classes of
their own, an augmentation of each is its query.

Departures: UMTRA's default augmentation is a random affine change; the authors' code
zeroes pixels and shifts (Omniglot), and changes colours (miniImageNet).

CACTUs: Hsu, Levine, Finn. Unsupervised Learning via Meta-Learning. ICLR 2019,
arXiv 1810.02334, algorithm 1: k-means clusters of an embedding are the classes; several
partitions come from dimensions scaled by uniform(0, 1), the first, as in the authors' code,
from the embedding as it is.

Departures: CACTUs' k-means takes 20 steps from one start; the authors' code up to 3000,
and begins anew while fewer than 3 in 4 of the clusters are large enough for a task.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.boundary import to_float
from jaxmeta.checks import (
    check_finite,
    check_functions,
    check_seeds,
    check_sizes,
    to_array,
)
from jaxmeta.data.arrays import to_images
from jaxmeta.tasks.augment import Augment, affine
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import without_replacement
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images"],
    meta_fields=["ways", "shots", "queries", "augment"],
)
@dataclass(frozen=True)
class Umtra:
    """A distribution over tasks whose classes are single examples."""

    images: jax.Array  # [examples, ...]
    ways: int
    shots: int
    queries: int
    augment: Augment

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task; the first support example of a class is the example itself."""
        key_classes, key_augment = jax.random.split(key)
        chosen = without_replacement(key_classes, self.ways, len(self.images))
        x = to_float(self.images[chosen])
        each = self.shots + self.queries
        keys = jax.random.split(key_augment, (self.ways, each))
        several = jax.vmap(self.augment, (0, None))
        views = jax.vmap(several)(keys, x)  # [ways, each, ...]
        views = views.at[:, 0].set(x)

        def batch(views):
            labels = jnp.repeat(jnp.arange(self.ways), views.shape[1])
            return Batch(jnp.reshape(views, (-1, *views.shape[2:])), labels)

        return Task(batch(views[:, : self.shots]), batch(views[:, self.shots :]))


def umtra(
    images: Any,
    ways: int = 5,
    shots: int = 1,
    queries: int = 1,
    *,
    augment: Augment | None = None,
) -> Umtra:
    """UMTRA: each task's classes are different examples, its queries augmentations.

    Args:
        images: [examples, ...] without labels, uint8 in 0..255 or floating. Two of the
            examples drawn may be of one class; the more classes, the less often.
        ways: classes of a task. shots: support examples of each class, the second and
            more augmented. queries: query examples of each class.
        augment: (key, example) -> example, one of `jm.tasks.augment` or any function;
            None = `affine()`, a random affine change of images.

    Returns: a sampler.
    Raises: ValueError for more ways than examples, sizes below 1, NaN, or examples that
        are no images without `augment`.

    >>> images = np.random.default_rng(0).random((30, 8, 8, 1), np.float32)
    >>> task = umtra(images, ways=5, queries=2).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.tolist()
    ((5, 8, 8, 1), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    """
    check_sizes(2, ways=ways)
    check_sizes(shots=shots, queries=queries)
    images = to_images(images, "umtra images")
    if ways > len(images):
        raise ValueError(
            f"ways: {ways} examples wanted, there are {len(images)}; lower ways"
        )
    if augment is None:
        if images.ndim != 4:
            raise ValueError(
                "augment: expected images [examples, height, width, channels], got "
                f"{images.shape}; give a function (key, example) -> example"
            )
        augment = affine()
    check_functions(augment=augment)
    return Umtra(jnp.asarray(images), ways, shots, queries, augment)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "members", "counts"],
    meta_fields=["ways", "shots", "queries"],
)
@dataclass(frozen=True)
class Cactus:
    """A distribution over tasks whose classes are clusters."""

    images: jax.Array  # [examples, ...]
    members: jax.Array  # [partitions, clusters, most] numbers of examples
    counts: jax.Array  # [partitions, clusters]
    ways: int
    shots: int
    queries: int

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task: a partition, then clusters of it that are large enough."""
        key_partition, key_clusters, key_examples = jax.random.split(key, 3)
        each = self.shots + self.queries
        partition = jax.random.randint(key_partition, (), 0, len(self.counts))
        counts = self.counts[partition]
        draws = jax.random.uniform(key_clusters, counts.shape)
        draws = jnp.where(counts >= each, draws, -1.0)
        chosen = jax.lax.top_k(draws, self.ways)[1]
        places = jax.vmap(without_replacement, (0, None, None, 0))(
            jax.random.split(key_examples, self.ways),
            each,
            self.members.shape[2],
            counts[chosen],
        )
        numbers = self.members[partition, chosen[:, None], places]  # [ways, each]
        x = to_float(self.images[numbers])

        def batch(x):
            labels = jnp.repeat(jnp.arange(self.ways), x.shape[1])
            return Batch(jnp.reshape(x, (-1, *x.shape[2:])), labels)

        return Task(batch(x[:, : self.shots]), batch(x[:, self.shots :]))


def cactus(
    images: Any,
    embeddings: Any,
    ways: int = 5,
    shots: int = 1,
    queries: int = 5,
    *,
    clusters: int = 500,
    partitions: int = 10,
    seed: int = 0,
) -> Cactus:
    """CACTUs: clusters of an embedding are the classes of the tasks.

    Args:
        images: [examples, ...] without labels, uint8 in 0..255 or floating.
        embeddings: [examples, features], from any method without labels.
        ways: classes of a task. shots: support examples of each class.
        queries: query examples of each class.
        clusters: k of k-means. partitions: how many k-means, all but the first on
            dimensions scaled by random factors in 0..1 (the paper: 50).
        seed: of the scales and of k-means.

    Returns: a sampler.
    Raises: ValueError for shapes that do not fit, NaN, more clusters than examples, or a
        partition with fewer than `ways` clusters of shots + queries examples.
    """
    check_sizes(2, ways=ways)
    check_sizes(shots=shots, queries=queries)
    check_sizes(clusters=clusters, partitions=partitions)
    check_seeds(seed=seed)
    images = to_images(images, "cactus images")
    embeddings = to_array("embeddings", embeddings).astype(np.float64)
    if embeddings.ndim != 2 or len(embeddings) != len(images):
        raise ValueError(
            f"embeddings: expected [{len(images)}, features], one row an image, got "
            f"{embeddings.shape}"
        )
    check_finite(embeddings, "cactus embeddings")
    if clusters > len(images):
        raise ValueError(f"clusters: {clusters} wanted of {len(images)} examples")
    random = np.random.default_rng(seed)
    scales = random.uniform(size=(partitions, embeddings.shape[1]))
    scales[0] = 1
    rows = [_partition(embeddings * scale, clusters, random) for scale in scales]
    counts = np.stack([np.bincount(r, minlength=clusters) for r in rows])
    enough = (counts >= shots + queries).sum(axis=1)
    if enough.min() < ways:
        raise ValueError(
            f"clusters: a partition has {enough.min()} clusters of at least {shots} + "
            f"{queries} examples, {ways} ways need as many; lower clusters or queries"
        )
    members = np.zeros((partitions, clusters, counts.max()), np.int32)
    for p, row in enumerate(rows):
        order = np.argsort(row, kind="stable")
        ends = np.cumsum(counts[p])
        place = np.arange(len(row)) - np.repeat(ends - counts[p], counts[p])
        members[p, row[order], place] = order
    return Cactus(
        jnp.asarray(images),
        jnp.asarray(members),
        jnp.asarray(counts, jnp.int32),
        ways,
        shots,
        queries,
    )


def _partition(embeddings, clusters, random):
    """[examples] cluster of each, by k-means."""
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster is merely never drawn
        return kmeans2(embeddings, clusters, iter=20, minit="++", rng=random)[1]
