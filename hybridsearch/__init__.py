"""Hybrid search: lexical, sparse and dense retrievers, whose rankings are merged, reranked and explained.

A name is imported at its first use. So `import hybridsearch` loads no model library and no client of an engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridsearch.context import Context as Context
    from hybridsearch.documents import Document as Document
    from hybridsearch.encoders.bm25 import BM25 as BM25
    from hybridsearch.encoders.char_ngrams import CharNGrams as CharNGrams
    from hybridsearch.encoders.dense import Dense as Dense
    from hybridsearch.encoders.native import NativeBM25 as NativeBM25
    from hybridsearch.encoders.sparse import Sparse as Sparse
    from hybridsearch.encoders.tokens import Tokenizer as Tokenizer
    from hybridsearch.errors import HybridSearchError as HybridSearchError
    from hybridsearch.evaluation.calibrating import calibrate as calibrate
    from hybridsearch.evaluation.comparison import Comparison as Comparison
    from hybridsearch.evaluation.datasets import Dataset as Dataset
    from hybridsearch.evaluation.datasets import load_dataset as load_dataset
    from hybridsearch.evaluation.experiment import compare as compare
    from hybridsearch.evaluation.experiment import evaluate as evaluate
    from hybridsearch.evaluation.judging import Judgements as Judgements
    from hybridsearch.evaluation.optimizing import optimize as optimize
    from hybridsearch.evaluation.pipeline import Pipeline as Pipeline
    from hybridsearch.evaluation.recall import RecallReport as RecallReport
    from hybridsearch.evaluation.recall import recall as recall
    from hybridsearch.evaluation.tuning import tune as tune
    from hybridsearch.feedback import RM3 as RM3
    from hybridsearch.feedback import Rocchio as Rocchio
    from hybridsearch.fusion import RRF as RRF
    from hybridsearch.fusion import AdaptiveFusion as AdaptiveFusion
    from hybridsearch.fusion import JudgedFusion as JudgedFusion
    from hybridsearch.fusion import ScoreFusion as ScoreFusion
    from hybridsearch.hits import Explanation as Explanation
    from hybridsearch.hits import Hit as Hit
    from hybridsearch.hits import Results as Results
    from hybridsearch.indexing.cluster import RayCluster as RayCluster
    from hybridsearch.indexing.cluster import encode_on_ray as encode_on_ray
    from hybridsearch.indexing.copying import CopyReport as CopyReport
    from hybridsearch.indexing.copying import copy as copy
    from hybridsearch.indexing.copying import publish as publish
    from hybridsearch.opening import open as open
    from hybridsearch.passages import Passages as Passages
    from hybridsearch.ranking import Ranking as Ranking
    from hybridsearch.readers import read_documents as read_documents
    from hybridsearch.rerank import MMR as MMR
    from hybridsearch.rerank import CrossEncoderReranker as CrossEncoderReranker
    from hybridsearch.rerank import FieldBoost as FieldBoost
    from hybridsearch.rerank import LateInteraction as LateInteraction
    from hybridsearch.rerank import Recency as Recency
    from hybridsearch.search import HybridSearch as HybridSearch
    from hybridsearch.snippets import Highlight as Highlight
    from hybridsearch.snippets import Snippet as Snippet
    from hybridsearch.training.data import TrainingData as TrainingData
    from hybridsearch.training.dense import train_dense as train_dense
    from hybridsearch.training.late_interaction import train_late_interaction as train_late_interaction
    from hybridsearch.training.negatives.mining import mine_hard_negatives as mine_hard_negatives
    from hybridsearch.training.reranker import train_reranker as train_reranker
    from hybridsearch.training.settings import TrainingSettings as TrainingSettings
    from hybridsearch.training.sparse import train_sparse as train_sparse

__version__ = "0.1.0"

_HOMES = {
    "AdaptiveFusion": "fusion",
    "BM25": "encoders.bm25",
    "CharNGrams": "encoders.char_ngrams",
    "Comparison": "evaluation.comparison",
    "Context": "context",
    "CopyReport": "indexing.copying",
    "CrossEncoderReranker": "rerank",
    "Dataset": "evaluation.datasets",
    "Dense": "encoders.dense",
    "Document": "documents",
    "Explanation": "hits",
    "FieldBoost": "rerank",
    "Highlight": "snippets",
    "Hit": "hits",
    "HybridSearch": "search",
    "HybridSearchError": "errors",
    "JudgedFusion": "fusion",
    "Judgements": "evaluation.judging",
    "LateInteraction": "rerank",
    "MMR": "rerank",
    "NativeBM25": "encoders.native",
    "Passages": "passages",
    "Pipeline": "evaluation.pipeline",
    "RM3": "feedback",
    "RRF": "fusion",
    "Ranking": "ranking",
    "RayCluster": "indexing.cluster",
    "RecallReport": "evaluation.recall",
    "Recency": "rerank",
    "Results": "hits",
    "Rocchio": "feedback",
    "ScoreFusion": "fusion",
    "Snippet": "snippets",
    "Sparse": "encoders.sparse",
    "Tokenizer": "encoders.tokens",
    "TrainingData": "training.data",
    "TrainingSettings": "training.settings",
    "calibrate": "evaluation.calibrating",
    "compare": "evaluation.experiment",
    "copy": "indexing.copying",
    "encode_on_ray": "indexing.cluster",
    "evaluate": "evaluation.experiment",
    "load_dataset": "evaluation.datasets",
    "mine_hard_negatives": "training.negatives.mining",
    "open": "opening",
    "optimize": "evaluation.optimizing",
    "publish": "indexing.copying",
    "read_documents": "readers",
    "recall": "evaluation.recall",
    "train_dense": "training.dense",
    "train_late_interaction": "training.late_interaction",
    "train_reranker": "training.reranker",
    "train_sparse": "training.sparse",
    "tune": "evaluation.tuning",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


if not TYPE_CHECKING:  # so that a type checker finds misspelt names

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'hybridsearch' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"hybridsearch.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
