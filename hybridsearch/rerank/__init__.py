"""Rerankers score query and document together, for the first documents of a fused ranking.

They are slower than retrievers, and they order the first documents better.
"""

from hybridsearch.rerank.base import Reranker as Reranker
from hybridsearch.rerank.base import blended as blended
from hybridsearch.rerank.base import check_reranker as check_reranker
from hybridsearch.rerank.base import make_reranker as make_reranker
from hybridsearch.rerank.base import read_reranker as read_reranker
from hybridsearch.rerank.base import score_pairs as score_pairs
from hybridsearch.rerank.base import text_read as text_read
from hybridsearch.rerank.boosts import Boost as Boost
from hybridsearch.rerank.boosts import FieldBoost as FieldBoost
from hybridsearch.rerank.boosts import Recency as Recency
from hybridsearch.rerank.boosts import at_one_moment as at_one_moment
from hybridsearch.rerank.boosts import boosted as boosted
from hybridsearch.rerank.boosts import check_boosts as check_boosts
from hybridsearch.rerank.cross_encoder import CrossEncoderReranker as CrossEncoderReranker
from hybridsearch.rerank.diversity import MMR as MMR
from hybridsearch.rerank.diversity import Likeness as Likeness
from hybridsearch.rerank.diversity import check_diversity as check_diversity
from hybridsearch.rerank.diversity import similarities as similarities
from hybridsearch.rerank.late_interaction import LateInteraction as LateInteraction
from hybridsearch.rerank.late_interaction import TokenMatch as TokenMatch
