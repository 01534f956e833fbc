"""Merging the rankings of several retrievers into one.

A fusion is a subclass of `Fusion` with one method: what each listed document earns from each retriever. The rest
(summing, ties, weights) is the same for all.
"""

from hybridsearch.fusion.adaptive import AdaptiveFusion as AdaptiveFusion
from hybridsearch.fusion.base import Fusion as Fusion
from hybridsearch.fusion.files import make_fusion as make_fusion
from hybridsearch.fusion.files import read_fusion as read_fusion
from hybridsearch.fusion.rrf import RRF as RRF
from hybridsearch.fusion.score import ScoreFusion as ScoreFusion
