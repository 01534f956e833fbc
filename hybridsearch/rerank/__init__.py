"""Rerankers read query and document together and score the pair: slower than retrieval, and better at the top."""

from hybridsearch.rerank.base import Reranker as Reranker
from hybridsearch.rerank.base import make_reranker as make_reranker
from hybridsearch.rerank.base import score_pairs as score_pairs
from hybridsearch.rerank.cross_encoder import CrossEncoderReranker as CrossEncoderReranker
