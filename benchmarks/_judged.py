"""The train and test queries of four collections, for `training.py`.

| collection | queries                              | relevant documents           | train, test                       |
|------------|--------------------------------------|------------------------------|-----------------------------------|
| scifact    | claims                               | abstracts, as judged         | the official split: 809, 300      |
| cranfield  | questions of engineers               | abstracts, as judged         | by number: 1 to 125, and 100 more |
| medquad    | questions of pages about health      | the answers to the question  | by page: 500 and 500              |
| nli        | sentences                            | sentences that they entail   | the official split: 500 and 500   |
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import hybridsearch as hs
from hybridsearch.readers.lines import read_lines

QUERIES = 500
"""Largest number of train queries, and of test queries, of MedQuAD and the NLI pairs."""

DOCUMENTS = 3000
"""Number of answers of MedQuAD that are searched."""

Relevant = dict[str, dict[str, int]]
"""Text of a query -> id of a document -> grade."""


def scifact(data: Path) -> tuple[hs.Dataset, hs.Dataset]:
    return hs.load_dataset(data / "scifact", split="train"), hs.load_dataset(data / "scifact")


def cranfield(data: Path) -> tuple[hs.Dataset, hs.Dataset]:
    whole = hs.load_dataset(data / "cranfield")
    relevant = {whole.queries[id]: dict(whole.qrels[id]) for id in sorted(whole.queries, key=int)}
    asked = list(relevant)
    return _parts("cranfield", relevant, asked[:125], asked[125:], whole.corpus or ())


def read_medquad(folder: Path) -> tuple[dict[str, hs.Document], Relevant, dict[str, set[str]]]:
    """The answers, the ids of the answers to each question, and the pages that have the question.

    Equal answers are one document. A question can have several answers, from several sources.
    """
    answers: dict[str, hs.Document] = {}
    relevant: Relevant = {}
    pages: dict[str, set[str]] = {}
    for _, line in read_lines(folder / "pairs.jsonl"):
        pair = json.loads(line)
        question, answer = (" ".join(pair[key].lower().split()) for key in ("question", "answer"))
        if answer:
            document = answers.setdefault(answer, hs.Document(pair["_id"], pair["answer"]))
            relevant.setdefault(question, {})[document.id] = 1
            pages.setdefault(question, set()).add(pair["_id"].rpartition("-")[0])
    return answers, relevant, pages


def medquad(data: Path) -> tuple[hs.Dataset, hs.Dataset]:
    """No page has questions in both parts."""
    answers, relevant, pages = read_medquad(data / "medquad")
    names = sorted(set().union(*pages.values()))
    random.Random(0).shuffle(names)
    held = set(names[: len(names) // 5])
    asked = sorted(relevant)
    random.Random(0).shuffle(asked)
    train = [question for question in asked if not pages[question] & held]
    test = [question for question in asked if pages[question] <= held]
    train, test = train[:QUERIES], test[:QUERIES]
    corpus = {document.id: document for document in answers.values()}
    kept = list(dict.fromkeys(id for question in [*train, *test] for id in relevant[question]))
    others = sorted(set(corpus) - set(kept))
    random.Random(0).shuffle(others)
    kept += others[: DOCUMENTS - len(kept)]
    return _parts("medquad", relevant, train, test, [corpus[id] for id in sorted(kept)])


def nli(data: Path) -> tuple[hs.Dataset, hs.Dataset]:
    """Each first sentence searches for the second sentences that it entails, among the second sentences of all rows."""
    documents: dict[str, hs.Document] = {}
    relevant: Relevant = {}
    asked: dict[str, list[str]] = {}
    for part in ("train", "dev", "test"):
        with (data / "cad_nli" / "all_combined" / f"{part}.tsv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                second = documents.setdefault(row["sentence2"], hs.Document(str(len(documents)), row["sentence2"]))
                if row["label"] == "entailment":
                    relevant.setdefault(row["sentence1"], {})[second.id] = 1
                    asked.setdefault(part, []).append(row["sentence1"])
    train, test = (list(dict.fromkeys(asked[part])) for part in ("train", "test"))
    train = [one for one in train if one not in test]
    random.Random(0).shuffle(train)
    random.Random(0).shuffle(test)
    return _parts("nli", relevant, train[:QUERIES], test[:QUERIES], list(documents.values()))


COLLECTIONS = {"scifact": scifact, "cranfield": cranfield, "medquad": medquad, "nli": nli}


def _parts(
    name: str,
    relevant: Mapping[str, Mapping[str, int]],
    train: list[str],
    test: list[str],
    corpus: Iterable[hs.Document],
) -> tuple[hs.Dataset, hs.Dataset]:
    """A data set of each list of queries."""
    first, second = (
        hs.Dataset(
            f"{name}/{part}",
            {f"{part}{number}": query for number, query in enumerate(asked)},
            {f"{part}{number}": relevant[query] for number, query in enumerate(asked)},
            corpus,
        )
        for part, asked in (("train", train), ("test", test))
    )
    return first, second
