"""Learners of what a user will think of items, from what they rated."""

from jaxmeta.learners.recommendation.item_mean import ItemMeans as ItemMeans
from jaxmeta.learners.recommendation.item_mean import item_mean as item_mean
from jaxmeta.learners.recommendation.item_mean import item_means as item_means
from jaxmeta.learners.recommendation.melu import melu as melu
from jaxmeta.learners.recommendation.tanp import tanp as tanp
