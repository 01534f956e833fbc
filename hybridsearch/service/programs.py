"""The program that can judge before people do: the cross-encoder of `--judge`, or the reranker of the index."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hybridsearch.documents import Document
from hybridsearch.errors import HybridSearchError, InvalidArgumentError, MissingExtraError
from hybridsearch.evaluation.judging import LONGEST_NAME, Judgements
from hybridsearch.messages import redacted
from hybridsearch.rerank import Reranker, read_reranker, score_pairs
from hybridsearch.search import HybridSearch
from hybridsearch.service.choosing import without_folders
from hybridsearch.service.settings import Settings

_log = logging.getLogger(__name__)

SAMPLE = 24
"""Number of documents whose scores people see before they choose thresholds."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can judge.

    Attributes:
        reranker: Reranker that gives the scores.
        reranks: Whether it is the reranker of the index. Then its grades must not measure this reranker.
    """

    reranker: Reranker
    reranks: bool

    @property
    def name(self) -> str:
        """Name to judge under: the last part of the model's name, or the name of the class."""
        model = getattr(self.reranker, "model", None)
        name = str(getattr(model, "name", type(self.reranker).__name__))
        return re.split(r"[/\\]", name.rstrip("/\\"))[-1][:LONGEST_NAME]

    def described(self) -> dict[str, Any]:
        """What the page says about the program."""
        return {"name": self.name, "about": without_folders(repr(self.reranker)), "reranks": self.reranks}

    def sample(self, judgements: Judgements, search: HybridSearch) -> list[dict[str, Any]]:
        """Score some documents of the pools, the first documents of as many queries as possible.

        Args:
            judgements: The pools.
            search: The index that has the texts.

        Returns:
            `query`, `title` and `score` of at most `SAMPLE` documents, the highest score first.

        Raises:
            InvalidArgumentError: The program cannot be used, for example because there is no such model.
        """
        pools = [[(query, id) for id in judgements.documents(query)] for query in judgements.queries]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*pools))
        pairs = list(itertools.islice((pair for pair in turns if pair), SAMPLE))
        stored = {one.id: one for one in search.get(list({id for _, id in pairs})) if one is not None}
        known = [(judgements.queries[query], stored[id]) for query, id in pairs if id in stored]
        with _without_folders():
            scores = score_pairs(self.reranker, [text for text, _ in known], [[document] for _, document in known])
        rows = [
            {"query": text, "title": (document.title or document.text)[:200], "score": float(of[0])}
            for (text, document), of in zip(known, scores, strict=True)
        ]
        return sorted(rows, key=lambda row: -row["score"])

    def judge(self, judgements: Judgements, search: HybridSearch, name: str, thresholds: Sequence[float]) -> None:
        """Grade all documents of the pools that the program has not graded, as `Judgements.judge_with` does.

        Args:
            judgements: The pools and the grades.
            search: The index that has the texts.
            name: Name of the judge.
            thresholds: The least scores of the grades 1, 2 and 3.

        Raises:
            InvalidArgumentError: The program cannot be used, or the name is of another judge.
        """
        with _without_folders():
            judgements.judge_with(name, self.reranker, search, thresholds=thresholds)


def read_judge(settings: Settings) -> Reranker | None:
    """The cross-encoder of `--judge`, which is not loaded yet.

    Args:
        settings: Settings of the service.

    Returns:
        The cross-encoder. None if the settings have none.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidArgumentError: There is no folder for its grades.
    """
    if not settings.judge:
        return None
    if not settings.judgements:
        raise InvalidArgumentError("--judge MODEL needs --judgements FOLDER, which keeps the grades.")
    reranker = read_reranker(settings.judge)
    reranker.model.folder()  # type: ignore[attr-defined]
    return reranker


def load(judge: Reranker | None) -> None:
    """Load the model of a judge, so that no request waits for it. If this fails, the log says why.

    Args:
        judge: The cross-encoder. None for no judge.
    """
    if judge is None:
        return
    try:
        judge.rerank(["query"], [[Document("id", "text")]])
    except Exception as error:
        _log.error("The model of --judge cannot be loaded: %s", redacted(error))


@contextmanager
def _without_folders() -> Iterator[None]:
    """Errors for the page: their sentences name no folder of the machine."""
    try:
        yield
    except MissingExtraError:
        raise
    except HybridSearchError as error:
        raise InvalidArgumentError(without_folders(str(error))) from error
