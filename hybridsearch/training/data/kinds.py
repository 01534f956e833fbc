"""The kinds of training data, and their columns."""

from __future__ import annotations

from enum import StrEnum

from hybridsearch.errors import InvalidArgumentError


class Kind(StrEnum):
    """What the rows of training data are; losses are chosen by it (`hybridsearch.training.losses`).

    The columns of each kind, in the order in which sentence-transformers' trainers feed them:

    | kind          | columns                                                                                 |
    |---------------|-----------------------------------------------------------------------------------------|
    | TEXTS         | text                                                                                    |
    | EMBEDDED      | text, label: the teacher's embedding of it, list of float                               |
    | PAIRS         | anchor, positive                                                                        |
    | CLASSED       | anchor, positive (here: any other text), label: int, a ClassLabel where names are known |
    | LABELLED      | anchor, positive (here: any other text), label: int, 0 or 1                             |
    | SCORED        | anchor, positive (here: any other text), label: float, 0 to 1 (or -1 to 1)              |
    | TUPLES        | anchor, positive, negative_1, negative_2, ...                                           |
    | SCORED_TUPLES | anchor, positive, negative_1, ..., label: list of float, see below                      |
    | LISTS         | query, docs: list of str, labels: list of float                                         |

    The label of a scored tuple is the teacher's score of the positive, then of each negative; or, one shorter, the
    margins score(positive) - score(negative).
    """

    TEXTS = "texts"
    EMBEDDED = "texts with embeddings"
    PAIRS = "pairs"
    CLASSED = "pairs with class"
    LABELLED = "pairs with 0/1"
    SCORED = "pairs with score"
    TUPLES = "tuples"
    SCORED_TUPLES = "tuples with scores"
    LISTS = "lists"


def parse_kind(kind: Kind | str) -> Kind:
    """The kind by its value ("pairs with score") or name ("scored"), in any case; "triplets" are tuples.

    Raises:
        InvalidArgumentError: there is no such kind.
    """
    plain = str(kind).strip().lower().replace("_", " ").replace("-", " ")
    aliases = {member.name.lower().replace("_", " "): member for member in Kind} | {"triplets": Kind.TUPLES}
    aliases |= {member.value: member for member in Kind}
    if plain not in aliases:
        raise InvalidArgumentError(f"kind is one of {', '.join(repr(member.value) for member in Kind)}, not {kind!r}.")
    return aliases[plain]


def columns_of(kind: Kind, negatives: int) -> list[str]:
    """The columns of a kind, in order; tuples have at least one negative."""
    pair = ["anchor", "positive"]
    tuples = pair + [f"negative_{number}" for number in range(1, max(negatives, 1) + 1)]
    return {
        Kind.TEXTS: ["text"],
        Kind.EMBEDDED: ["text", "label"],
        Kind.PAIRS: pair,
        Kind.CLASSED: [*pair, "label"],
        Kind.LABELLED: [*pair, "label"],
        Kind.SCORED: [*pair, "label"],
        Kind.TUPLES: tuples,
        Kind.SCORED_TUPLES: [*tuples, "label"],
        Kind.LISTS: ["query", "docs", "labels"],
    }[kind]
