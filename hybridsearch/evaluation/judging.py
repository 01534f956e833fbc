"""Judging: people, or programs with a score, grade the first documents of several systems for some queries.

The first documents of all these systems are the *pool* of a query (Sparck Jones and van Rijsbergen, 1975). A judge sees
them in a shuffled order, and sees neither ranks nor scores nor systems. So no system is favoured. A document outside of
the pool counts as not relevant.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.errors import EncodingError, InvalidArgumentError
from hybridsearch.evaluation.agreement import Agreement, Weighting, agreement
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.experiment import rankings_of
from hybridsearch.evaluation.judgement_log import Judgement, JudgementLog, Pair
from hybridsearch.evaluation.judgement_pool import Pool, PoolFile
from hybridsearch.evaluation.measures import write_qrels
from hybridsearch.evaluation.pipeline import Pipeline, Run, make_plan
from hybridsearch.evaluation.spec import default_systems, parse_systems
from hybridsearch.evaluation.stages import Stages
from hybridsearch.indexing.adding import Documents
from hybridsearch.messages import number_of, warn
from hybridsearch.progress import progress_bar
from hybridsearch.readers import read_documents
from hybridsearch.readers.lines import writable
from hybridsearch.rerank import Reranker, score_pairs
from hybridsearch.search import HybridSearch

Rule: TypeAlias = Literal["majority", "lower-median"]
"""How a disagreement is settled.

- "majority": the most frequent grade. Of equally frequent grades, it is the lowest.
- "lower-median": the middle grade. Of two middle grades, it is the lower.
"""

Scorer: TypeAlias = "Reranker | Callable[[str, Sequence[str]], Sequence[float]]"
"""A program that judges: a reranker, or a function from a query and texts to a score for each text."""

HIGHEST = 3
"""The highest grade. 0 is not relevant, 1 touches the question, 2 answers a part of it, 3 answers it."""

LONGEST_NAME = 80
"""Largest number of characters of the name of a judge."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a judge has come.

    Attributes:
        graded: Number of documents that the judge graded.
        skipped: Number of documents that the judge skipped.
        documents: Number of documents of all pools.
        finished: Number of queries for which the judge graded or skipped each document.
        queries: Number of queries.
    """

    graded: int
    skipped: int
    documents: int
    finished: int
    queries: int

    @property
    def left(self) -> int:
        """Number of documents that the judge has neither graded nor skipped."""
        return self.documents - self.graded - self.skipped


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A document to which judges gave different grades.

    Attributes:
        query: Id of the query.
        document: Id of the document.
        grades: Grade by judge.
    """

    query: str
    document: str
    grades: Mapping[str, int]

    @property
    def spread(self) -> int:
        """Difference of the highest and the lowest grade."""
        return max(self.grades.values()) - min(self.grades.values())


class Judgements:
    """The grades that judges gave to documents, kept in a folder.

    Each grade is on the disk before the call that gives it returns. Several judges, threads and processes may use one
    folder at the same time.

    Args:
        folder: Folder that keeps the pools and the grades. `add_pool` makes it.

    >>> import tempfile
    >>> import hybridsearch as hs
    >>> search = hs.HybridSearch({"bm25": hs.BM25()})
    >>> report = search.index([hs.Document("a", "wing lift"), hs.Document("b", "wing")], show_progress_bar=False)
    >>> judgements = hs.Judgements(tempfile.mkdtemp())
    >>> judgements.add_pool(search, {"q1": "lift of a wing"}, show_progress_bar=False)
    2
    >>> sorted(judgements.documents("q1"))
    ['a', 'b']
    >>> judgements.grade("anna", "q1", "a", 3)
    >>> judgements.grade("anna", "q1", "b", 0)
    >>> judgements.dataset("mine").qrels
    {'q1': {'a': 3, 'b': 0}}
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = arguments.path("The folder of judgements", folder)
        self._log = JudgementLog(self.folder / "grades.jsonl")
        self._pool_file = PoolFile(self.folder / "pool.json")

    def __repr__(self) -> str:
        documents = sum(map(len, self._pool.documents.values()))
        judges = ", ".join(self.judges) or "no judge"
        queries = number_of(len(self.queries), "query", "queries")
        return f"Judgements({str(self.folder)!r}: {queries}, {number_of(documents, 'document')}, {judges})"

    # What is judged

    @property
    def queries(self) -> dict[str, str]:
        """The queries: id -> text."""
        return dict(self._pool.queries)

    @property
    def systems(self) -> dict[str, str]:
        """The systems whose first documents are judged: name -> description."""
        return dict(self._pool.systems)

    def documents(self, query: str) -> tuple[str, ...]:
        """The ids of the documents to judge for a query, in the order in which a judge sees them."""
        if query not in self._pool.documents:
            raise InvalidArgumentError(f"There is no query {query!r:.80} to judge: add it by add_pool.")
        return self._pool.documents[query]

    def add_pool(
        self,
        systems: HybridSearch | Mapping[str, HybridSearch | Pipeline | Run],
        queries: Mapping[str, str] | Sequence[str],
        *,
        depth: int = 10,
        seed: int = 0,
        show_progress_bar: bool | None = None,
    ) -> int:
        """Add the first documents of several systems to what is judged.

        Queries and documents that are there already stay as they are, with their grades. So more queries, more systems
        or a greater depth can be added later. New documents come after the old ones of their query.

        Args:
            systems: Systems by name, as `compare` takes them. An index stands for the systems that `compare` measures
                by default: each retriever alone, RRF, min-max, and the reranker of the index if it has one.
            queries: Queries by id, as `hybridsearch.evaluation.datasets.read_queries` reads them from a file. Or a list
                of texts, which get the ids q1, q2 and so on. A text of a list that is there already keeps its id. If
                a mapping gives it another id, it gets this id, unless it has grades.
            depth: Number of first documents of each system.
            seed: Random seed of the order of the documents.
            show_progress_bar: Whether to show progress bars. None shows them in a terminal.

        Returns:
            Number of documents that are new, counted for each query.

        Raises:
            InvalidArgumentError: A system or a query is not usable, or a query id has another text already, or a query
                has grades under another id.
            StorageError: The folder cannot be written.
        """
        depth, seed = arguments.whole_number("depth", depth), arguments.whole_number("seed", seed, 0)
        queries = checked_queries(self._numbered(queries))
        if isinstance(systems, HybridSearch):
            systems = parse_systems(
                default_systems(list(systems.retrievers), systems.reranker), systems, systems.reranker
            )
        plans = [make_plan(name, system, depth) for name, system in systems.items()]
        rankings = rankings_of(plans, Stages(queries, show=show_progress_bar), {})
        found = {
            query: sorted({id for of_system in rankings.values() for id in of_system[query].ids[:depth]})
            for query in queries
        }
        with self._log.writing():
            before = self._pool
            known = before.queries
            for id, text in queries.items():
                if known.get(id, text) != text:
                    raise InvalidArgumentError(
                        f"The query id {id!r:.80} has the text {known[id]!r:.80} already: give the new query another "
                        "id."
                    )
            generator = np.random.default_rng(seed)
            documents, added = dict(before.documents), 0
            renamed = self._renamed(known, queries)
            for old_id, id in renamed.items():
                documents.setdefault(id, documents.pop(old_id))
            for query, ids in found.items():
                old = documents.get(query, ())
                new = [id for id in ids if id not in old]
                documents[query] = (*old, *(new[place] for place in generator.permutation(len(new))))
                added += len(new)
            retrievers = {
                name for plan in plans if isinstance(plan.source, HybridSearch) for name in plan.source.retrievers
            }
            self._pool_file.write(
                Pool(
                    queries={id: text for id, text in known.items() if id not in renamed} | queries,
                    documents=documents,
                    systems={**before.systems, **{plan.name: plan.description for plan in plans}},
                    retrievers=tuple(sorted({*before.retrievers, *retrievers})),
                )
            )
        return added

    # Grading

    def grade(self, judge: str, query: str, document: str, grade: int) -> None:
        """Give a document a grade. It takes the place of an earlier grade of the same judge.

        Args:
            judge: Name of the judge, a person.
            query: Id of the query.
            document: Id of a document of the query's pool.
            grade: Grade from 0 to 3.

        Raises:
            InvalidArgumentError: The document is not in the pool, or another argument is not allowed.
            StorageError: The file of grades cannot be written. Then the grade does not count.
        """
        if arguments.whole_number("grade", grade, 0) > HIGHEST:
            raise InvalidArgumentError(f"grade is {grade}, but it must be a whole number from 0 to {HIGHEST}.")
        self._append(judge, query, document, grade)

    def skip(self, judge: str, query: str, document: str) -> None:
        """Note that a judge cannot grade a document. The document has no grade of this judge then.

        Args:
            judge: Name of the judge, a person.
            query: Id of the query.
            document: Id of a document of the query's pool.

        Raises:
            InvalidArgumentError: The document is not in the pool, or the name of the judge is not allowed.
            StorageError: The file of grades cannot be written.
        """
        self._append(judge, query, document, None)

    def undo(self, judge: str) -> Judgement | None:
        """Take back the last grade or skip of a judge. An earlier grade of the same document counts again.

        Args:
            judge: Name of the judge, a person.

        Returns:
            What was taken back. None if there is nothing to take back.
        """
        judge = self._check_person(judge)
        with self._log.writing():
            last = self._log.last(judge)
            if last is not None:
                self._log.append(judge, [{"undo": True}])
        return last

    def judge_with(
        self,
        judge: str,
        scorer: Scorer,
        source: HybridSearch | Documents,
        *,
        thresholds: Sequence[float] = (1, 2, 3),
        about: str = "",
        show_progress_bar: bool | None = None,
    ) -> int:
        """Let a program grade all documents that it has not graded: a cross-encoder, or any function with a score.

        The program is a judge with a name, as a person is. `disagreements` lists the documents to which people gave
        other grades. If a call was interrupted, make it again to grade the rest.

        Args:
            judge: Name of the judge.
            scorer: Reranker, or function from a query and a list of texts to a score for each text. A function that
                asks a language model for a grade from 0 to 3 fits the default thresholds.
            source: Index that has the texts, or documents in any form that `hybridsearch.read_documents` takes.
            thresholds: The least scores of the grades 1, 2 and 3, in rising order. There may be fewer grades.
            about: Description of the judge, for the people who read the grades. Default: the `repr` of the scorer,
                without an address in memory.
            show_progress_bar: Whether to show a progress bar. None shows one in a terminal.

        Returns:
            Number of documents that were graded.

        Raises:
            InvalidArgumentError: The scorer is a retriever, or the judge is a person, or the thresholds do not rise.
            EncodingError: The scorer did not give one finite score for each text.
        """
        name = self._check_name(judge)
        self._check_scorer(name, scorer)
        limits = _check_thresholds(thresholds)
        if self.judges.get(name) == "":
            raise InvalidArgumentError(f"{name!r} is a person who has graded: give the program another name.")
        described = f"{about or description_of(scorer)}, thresholds {', '.join(f'{limit:g}' for limit in limits)}"
        if self.judges.get(name, described) != described:
            raise InvalidArgumentError(
                f"The judge {name!r} is {self.judges[name]} already: give another program or other thresholds another "
                "name."
            )
        done = self._log.of(name)
        left = {query: [id for id in ids if (query, id) not in done] for query, ids in self._pool.documents.items()}
        left = {query: ids for query, ids in left.items() if ids}
        texts = documents_of({id for ids in left.values() for id in ids}, source)
        missing = {id for ids in left.values() for id in ids} - texts.keys()
        if missing:
            warn(
                f"{number_of(len(missing), 'document')} such as {min(missing)!r:.80} cannot be graded, because they "
                "are not in the source."
            )
        if name not in self.judges:
            self._log.append(name, [{"about": described}])
        graded = 0
        with progress_bar("Judging", range(sum(map(len, left.values()))), show_progress_bar) as advance:
            for query, ids in left.items():
                known = [id for id in ids if id in texts]
                scores = scores_of(scorer, self.queries[query], [texts[id] for id in known])
                lines = []
                for id, score in zip(known, scores, strict=True):
                    grade = sum(score >= limit for limit in limits)
                    lines.append({"query": query, "document": id, "grade": grade, "score": score})
                self._log.append(name, lines)
                graded += len(known)
                advance(len(ids))
        return graded

    # Reading

    @property
    def judges(self) -> dict[str, str]:
        """All judges, and what they are: "" for a person, and a description with the thresholds for a program."""
        return self._log.about

    @property
    def people(self) -> list[str]:
        """Names of the judges that are people."""
        return [name for name, about in self.judges.items() if not about]

    def of(self, judge: str) -> dict[Pair, Judgement]:
        """What a judge said about each document, by query id and document id. Skipped documents have no grade."""
        documents = self._pool.documents
        return {(q, d): one for (q, d), one in self._log.of(judge).items() if d in documents.get(q, ())}

    def left(self, judge: str) -> list[Pair]:
        """The documents that a judge has neither graded nor skipped, in order: query id and document id."""
        done = self._log.of(judge)
        return [(query, id) for query, ids in self._pool.documents.items() for id in ids if (query, id) not in done]

    def progress(self, judge: str) -> Progress:
        """How far a judge has come."""
        done, pools = self.of(judge), self._pool.documents
        graded = sum(one.grade is not None for one in done.values())
        finished = sum(all((query, id) in done for id in ids) for query, ids in pools.items())
        return Progress(graded, len(done) - graded, sum(map(len, pools.values())), finished, len(pools))

    def agreement(
        self, judges: Collection[str] | None = None, *, weights: Weighting = "linear", seed: int = 0
    ) -> list[Agreement]:
        """Compute how far each two judges agree on the documents that both graded.

        Args:
            judges: Names of the judges. None takes all.
            weights: Weighting of the weighted kappa: "linear" or "quadratic".
            seed: Seed of the bootstrap intervals.

        Returns:
            An agreement for each two judges who graded a document in common.
        """
        grades = self._grades(list(self.judges) if judges is None else self._chosen(judges))
        found = []
        for first, second in itertools.combinations(grades, 2):
            both = [pair for pair in grades[first] if pair in grades[second]]
            if both:
                ours, theirs = ([grades[name][pair] for pair in both] for name in (first, second))
                found.append(agreement(ours, theirs, (first, second), weights=weights, seed=seed))
        return found

    def disagreements(self, judges: Collection[str] | None = None) -> list[Disagreement]:
        """List the documents with different grades, the largest difference first.

        Args:
            judges: Names of the judges. None takes all.
        """
        grades = self._grades(list(self.judges) if judges is None else self._chosen(judges))
        pairs = ((query, id) for query, ids in self._pool.documents.items() for id in ids)
        found = [Disagreement(*pair, {name: of[pair] for name, of in grades.items() if pair in of}) for pair in pairs]
        found = [one for one in found if len(set(one.grades.values())) > 1]
        return sorted(found, key=lambda one: -one.spread)

    def settled(
        self, judges: Collection[str] | None = None, *, rule: Rule = "lower-median", decider: str | None = None
    ) -> dict[str, dict[str, int]]:
        """One grade for each document that a judge graded.

        Args:
            judges: Names of the judges whose grades count. None takes all people. Programs count only if they are
                named.
            rule: How different grades are settled: "majority" or "lower-median" (see `Rule`).
            decider: Name of the judge with the last word: if this judge graded a document, only this grade counts. None
                for nobody.

        Returns:
            Query id -> document id -> grade, in the order of the pools.

        Raises:
            InvalidArgumentError: There is no judge of a name, `judges` is empty, no person has graded, or the rule is
                not known.
        """
        arguments.one_of("rule", rule, get_args(Rule))
        names = self._chosen(judges)
        if not names and decider is None:
            raise InvalidArgumentError("No judge is chosen: name at least one judge whose grades count.")
        grades = self._grades(dict.fromkeys([*names, *([] if decider is None else self._chosen([decider]))]))
        qrels: dict[str, dict[str, int]] = {}
        for query, ids in self._pool.documents.items():
            for id in ids:
                given = {name: of[query, id] for name, of in grades.items() if (query, id) in of}
                if decider is not None and decider in given:
                    qrels.setdefault(query, {})[id] = given[decider]
                elif given:
                    qrels.setdefault(query, {})[id] = _settle(list(given.values()), rule)
        return qrels

    def dataset(
        self,
        name: str = "judgements",
        corpus: Iterable[Document] | None = None,
        *,
        judges: Collection[str] | None = None,
        rule: Rule = "lower-median",
        decider: str | None = None,
        unfinished: bool = False,
    ) -> Dataset:
        """Make a data set of the settled grades, for `compare`, `evaluate` and `tune`.

        A query is finished if each document of its pool was graded or skipped by one of the judges. Documents without
        a grade count as not relevant, so unfinished queries are left out.

        Args:
            name: Name of the data set.
            corpus: Documents. None if an index is measured, because the index has them.
            judges: Names of the judges whose grades count. None takes all people.
            rule: How different grades are settled (see `Rule`).
            decider: Name of the judge with the last word, as in `settled`.
            unfinished: Whether to keep the queries that are not finished too.

        Returns:
            The data set. Its `left_out` is the number of queries that were left out.

        Raises:
            InvalidArgumentError: No query is finished, or an argument is not allowed, as in `settled`.
        """
        qrels = self.settled(judges, rule=rule, decider=decider)
        seen = set[Pair]().union(*(self.of(one) for one in {*self._chosen(judges), *([decider] if decider else [])}))
        pools = self._pool.documents
        kept = {
            query: grades
            for query, grades in qrels.items()
            if unfinished or all((query, id) in seen for id in pools[query])
        }
        if not kept:
            raise InvalidArgumentError(
                f"No query is finished: {number_of(len(qrels), 'query has', 'queries have')} grades, but documents of "
                "its pool are left. Grade or skip all documents of a query, or give unfinished=True."
            )
        queries = {query: self.queries[query] for query in kept}
        names = dict.fromkeys([*self._chosen(judges), *([] if decider is None else [decider])])
        judged_by = ", ".join(f"{one} ({about})" if (about := self.judges[one]) else one for one in names)
        return Dataset(name, queries, kept, corpus, len(self.queries) - len(kept), judged_by=judged_by)

    def save(
        self,
        folder: str | Path,
        corpus: Documents | None = None,
        *,
        judges: Collection[str] | None = None,
        rule: Rule = "lower-median",
        decider: str | None = None,
        unfinished: bool = False,
    ) -> None:
        """Write the settled grades to a folder in the layout of BEIR, which `hs.load_dataset` reads.

        The folder gets `queries.jsonl`, `qrels/test.tsv`, the same grades as TREC qrels in `qrels.trec`, the names of
        the judges in `judges.txt`, and `corpus.jsonl` if documents are given. `qrels.trec` is left out if an id has a
        blank, because TREC allows none.

        Args:
            folder: Folder to write. Existing files of these names are replaced.
            corpus: Documents, such as `search.documents()`, in any form that `hybridsearch.read_documents` takes. None
                writes none: then measure an index.
            judges: Names of the judges whose grades count. None takes all people.
            rule: How different grades are settled (see `Rule`).
            decider: Name of the judge with the last word, as in `settled`.
            unfinished: Whether to keep the queries that are not finished too (see `dataset`).

        Raises:
            InvalidArgumentError: As in `dataset`, or an id cannot be written to a file.
            StorageError: A file cannot be written.
        """
        dataset = self.dataset(judges=judges, rule=rule, decider=decider, unfinished=unfinished)
        with writable(folder) as place:
            (place / "qrels").mkdir(parents=True, exist_ok=True)
            _write_lines(place / "queries.jsonl", ({"_id": id, "text": text} for id, text in dataset.queries.items()))
            if corpus is not None:
                _write_lines(
                    place / "corpus.jsonl", ({"_id": one.id, **_without_id(one)} for one in read_documents(corpus))
                )
            (place / "judges.txt").write_text(dataset.judged_by + "\n", encoding="utf-8")
        write_qrels(dataset.qrels, place / "qrels" / "test.tsv")
        if not any(len(id.split()) != 1 for query, grades in dataset.qrels.items() for id in (query, *grades)):
            write_qrels(dataset.qrels, place / "qrels.trec")
        else:  # an earlier call may have written the grades of that time
            with writable(place / "qrels.trec") as trec:
                trec.unlink(missing_ok=True)

    # Helpers

    @property
    def _pool(self) -> Pool:
        return self._pool_file.read()

    def _numbered(self, queries: Mapping[str, str] | Sequence[str]) -> object:
        """Texts of queries by id. New texts get free ids."""
        if isinstance(queries, str | Mapping) or not isinstance(queries, Sequence):
            return queries
        known = {text: id for id, text in self.queries.items()}
        free = (id for number in itertools.count(1) if (id := f"q{number}") not in self.queries)
        return {known[text] if text in known else next(free): text for text in dict.fromkeys(queries)}

    def _renamed(self, known: Mapping[str, str], queries: Mapping[str, str]) -> dict[str, str]:
        """The new ids of queries that are there under another id. Raises InvalidArgumentError if one has grades."""
        ids = {text: id for id, text in queries.items()}
        renamed = {id: ids[text] for id, text in known.items() if text in ids and id not in queries}
        judged = {query for judge in self.judges for query, _ in self._log.of(judge)}
        for id in renamed.keys() & judged:
            raise InvalidArgumentError(
                f"The query {known[id]!r:.80} has grades under the id {id!r:.80}: leave it out, or give it this id."
            )
        return renamed

    def _append(self, judge: str, query: str, document: str, grade: int | None) -> None:
        judge = self._check_person(judge)
        if document not in self.documents(query):
            raise InvalidArgumentError(
                f"Document {document!r:.80} is not in the pool of query {query!r:.80}: documents(query) has its ids."
            )
        self._log.append(judge, [{"query": query, "document": document, "grade": grade}])

    def _grades(self, judges: Iterable[str]) -> dict[str, dict[Pair, int]]:
        """The grades of each judge, without skipped documents."""
        return {
            name: {pair: one.grade for pair, one in self.of(name).items() if one.grade is not None} for name in judges
        }

    def _chosen(self, judges: Collection[str] | None) -> list[str]:
        """Names of judges. Raises InvalidArgumentError if there is no judge of a name."""
        if judges is None:
            if not self.people:
                programs = ", ".join(map(repr, self.judges))
                also = f", or name the programs that count: judges=[{programs}]" if programs else ""
                raise InvalidArgumentError(f"No person has graded a document: grade some{also}.")
            return self.people
        chosen = arguments.names(judges)
        for name in chosen:
            if name not in self.judges:
                known = ", ".join(map(repr, self.judges)) or "nobody has graded yet"
                raise InvalidArgumentError(f"There is no judge {name!r:.80}. The judges: {known}.")
        return chosen

    def _check_name(self, judge: str) -> str:
        name = judge.strip() if isinstance(judge, str) else ""
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidArgumentError(
                f"The name of a judge is a text of 1 to {LONGEST_NAME} characters in one line, not {judge!r:.100}."
            )
        return name

    def _check_person(self, judge: str) -> str:
        name = self._check_name(judge)
        if self.judges.get(name):
            raise InvalidArgumentError(f"The judge {name!r} is a program: use another name.")
        return name

    def _check_scorer(self, name: str, scorer: object) -> None:
        owner = getattr(scorer, "__self__", scorer)  # of a bound method
        if name in self._pool.retrievers or isinstance(owner, Encoder | HybridSearch | Pipeline):
            raise InvalidArgumentError(
                f"The judge {name!r} is a retriever of the index that is judged, and would prefer its own documents: "
                "use a cross-encoder, or a function that is no part of the index."
            )
        if not callable(scorer) and not isinstance(scorer, Reranker):
            raise InvalidArgumentError(
                "The scorer is a reranker, or a function from a query and texts to scores, not "
                f"{arguments.shown(scorer)}."
            )


def _settle(grades: Sequence[int], rule: Rule) -> int:
    """The grade that `rule` chooses.

    >>> _settle([0, 3, 3], "majority"), _settle([0, 3], "majority"), _settle([0, 1, 2, 3], "lower-median")
    (3, 0, 1)
    """
    if rule == "lower-median":
        return sorted(grades)[(len(grades) - 1) // 2]
    counts = Counter(grades)
    return min(counts, key=lambda grade: (-counts[grade], grade))


def description_of(scorer: object) -> str:
    """What a program is, in words that are the same in every process. An address in memory is left out.

    >>> description_of(abs), description_of(object())
    ('<built-in function abs>', '<object object>')
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(scorer))[:500]


def scores_of(scorer: Scorer, query: str, documents: Sequence[Document]) -> list[float]:
    """Let a program score documents for a query. Raises EncodingError if it gives not one finite number for each."""
    if isinstance(scorer, Reranker):
        (scores,) = score_pairs(scorer, [query], [documents])
        return [float(score) for score in scores]
    given, wrong = scorer(query, [document.content for document in documents]), None
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        found, wrong = np.empty(0), error
    if found.shape != (len(documents),) or not np.isfinite(found).all():
        raise EncodingError(
            f"The judge did not give one finite score for each of {len(documents)} texts, but {arguments.shown(given)}."
        ) from wrong
    return [float(score) for score in found]


def documents_of(ids: Collection[str], source: HybridSearch | Documents) -> dict[str, Document]:
    """Read documents of an index, or in any form that `read_documents` takes, by id."""
    if isinstance(source, HybridSearch):
        return {one.id: one for one in source.get(list(ids)) if one is not None} if ids else {}
    return {one.id: one for one in read_documents(source) if one.id in ids}


def checked_queries(queries: object) -> dict[str, str]:
    """Queries by id. Raises InvalidArgumentError for another form."""
    if not isinstance(queries, Mapping) or not queries:
        raise InvalidArgumentError(
            f"queries is a mapping from query id to text, or a list of texts, not {arguments.shown(queries)}."
        )
    for id, text in queries.items():
        if not isinstance(id, str) or not id or not isinstance(text, str) or not text.strip():
            raise InvalidArgumentError(f"A query has an id and a text, not {id!r:.80} and {text!r:.80}.")
        if any("\ud800" <= character <= "\udfff" for character in id + text):
            raise InvalidArgumentError(f"The query {id!r:.80} holds a lone surrogate, which is not valid Unicode.")
    return dict(queries)


def _check_thresholds(thresholds: Sequence[float]) -> list[float]:
    limits = [arguments.number("A threshold", limit) for limit in thresholds]
    if not 1 <= len(limits) <= HIGHEST or limits != sorted(set(limits)):
        raise InvalidArgumentError(
            f"thresholds are the least scores of the grades 1 to {HIGHEST}, in rising order, not {thresholds!r:.80}."
        )
    return limits


def _without_id(document: Document) -> dict[str, Any]:
    found = document.to_dict()
    del found["id"]
    return found


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
