"""Rerankers read query and document together and score the pair: slower than retrieval, and better at the top."""

from hybridsearch.rerank.cross_encoder import CrossEncoderReranker as CrossEncoderReranker
from hybridsearch.rerank.cross_encoder import Reranker as Reranker
from hybridsearch.rerank.cross_encoder import make_reranker as make_reranker
from hybridsearch.rerank.cross_encoder import score_pairs as score_pairs
