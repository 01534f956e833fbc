"""Rerankers score query and document together, for the first documents of a fused ranking.

They are slower than retrievers, and they order the first documents better.
"""

from hybridsearch.rerank.base import Reranker as Reranker
from hybridsearch.rerank.base import make_reranker as make_reranker
from hybridsearch.rerank.base import score_pairs as score_pairs
from hybridsearch.rerank.base import text_read as text_read
from hybridsearch.rerank.cross_encoder import CrossEncoderReranker as CrossEncoderReranker
