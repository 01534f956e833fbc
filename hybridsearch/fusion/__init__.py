"""Fusions merge the rankings of several retrievers into one ranking.

A fusion is a subclass of `Fusion` with one method, `contributions`. `Fusion` sums the contributions, applies weights
and orders equal scores.
"""

from hybridsearch.fusion.adaptive import AdaptiveFusion as AdaptiveFusion
from hybridsearch.fusion.base import Fusion as Fusion
from hybridsearch.fusion.files import make_fusion as make_fusion
from hybridsearch.fusion.files import read_fusion as read_fusion
from hybridsearch.fusion.judged import JudgedFusion as JudgedFusion
from hybridsearch.fusion.rrf import RRF as RRF
from hybridsearch.fusion.score import ScoreFusion as ScoreFusion
