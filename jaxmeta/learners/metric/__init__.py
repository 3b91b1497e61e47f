"""Learners that embed and compare."""

from jaxmeta.learners.metric.baseline import baseline as baseline
from jaxmeta.learners.metric.baseline import baseline_plus_plus as baseline_plus_plus
from jaxmeta.learners.metric.deepemd import deepemd as deepemd
from jaxmeta.learners.metric.feat import feat as feat
from jaxmeta.learners.metric.matching import matching as matching
from jaxmeta.learners.metric.meta_baseline import meta_baseline as meta_baseline
from jaxmeta.learners.metric.nearest_neighbour import (
    nearest_neighbour as nearest_neighbour,
)
from jaxmeta.learners.metric.protonet import protonet as protonet
from jaxmeta.learners.metric.relation import relation as relation
from jaxmeta.learners.metric.siamese import siamese as siamese
from jaxmeta.learners.metric.simpleshot import simpleshot as simpleshot
from jaxmeta.learners.metric.soft_kmeans import soft_kmeans as soft_kmeans
