"""Models that describe the answers in OpenAPI. The answers themselves are made elsewhere."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from hybridsearch.service.models import DocumentBody


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    type: str = Field(
        description="Kind of the error, such as urn:hybridsearch:error:unknown-index.",
        pattern="^urn:hybridsearch:error:[a-z-]+$",
    )
    title: str
    status: int
    detail: str = Field(description="What was given, what is allowed, and what to do.")


class RetrieverHit(BaseModel):
    """Rank and score that one retriever gave a document."""

    rank: int = Field(ge=1)
    score: float
    contribution: float = Field(description="Number that the retriever added to the fused score.")


class Passage(BaseModel):
    """A passage of a hit that a retriever found."""

    start: int
    end: int
    text: str
    score: float
    retrievers: dict[str, RetrieverHit]
    pages: list[int] = Field(default=[], description="First and last page, if the text has pages.")


class Highlight(BaseModel):
    """A span of a document's text that a retriever found."""

    start: int
    end: int
    weight: float
    retriever: str
    term: str | None


class Snippet(BaseModel):
    """The part of a document's text that fits the query best."""

    text: str
    start: int
    end: int
    highlights: list[Highlight]


class Likeness(BaseModel):
    """Similarity to the most similar hit before this one."""

    similarity: float
    to: str


class Selected(BaseModel):
    """What boosts, diversity and groups did to a hit. Steps that were not asked for are left out."""

    boosts: dict[str, float] = {}
    likeness: Likeness | None = None
    group: Any = None
    grouped: list[str] = []
    passages: list[Passage] = []


class TokenMatch(BaseModel):
    """The token of a document that is most similar to a token of the query."""

    query: str
    document: str
    weight: float
    start: int | None
    end: int | None


class Expansion(BaseModel):
    """What feedback did to a query of one retriever."""

    method: str
    documents: dict[str, float] = Field(description="Feedback documents with their scores of the first pass.")
    terms: dict[str, float] = Field(description="Terms that were added, with their weights in the new query.")
    passages: dict[str, list[int]] = Field(default={}, description="Start and end of the passage that was read.")


class Explanation(Selected):
    """Explanation of the place of one document in the results of a query."""

    query: str
    id: str
    rank: int | None
    fused_rank: int | None
    fused_score: float | None
    reranker_score: float | None
    fusion: str
    retrievers: dict[str, RetrieverHit]
    terms: dict[str, dict[str, float]] = Field(description="Matched terms by retriever, with what each adds.")
    min_score: float | dict[str, float] | None = Field(
        default=None, description="Least score of a hit, or of a retriever by its name, that the search asked for."
    )
    blend: float = Field(default=0.0, description="Weight of the fused score in the score after reranking.")
    matches: list[TokenMatch] = Field(default=[], description="Tokens that a late-interaction reranker matched.")
    token_matches: dict[str, list[TokenMatch]] = Field(
        default={}, description="Tokens that late-interaction retrievers matched, by retriever."
    )
    notes: list[str] = []
    feedback: dict[str, Expansion] = Field(default={}, description="What feedback did to the query, by retriever.")


class Hit(Selected):
    """A document that a search found."""

    id: str
    rank: int = Field(ge=1)
    score: float
    fused_score: float
    rank_before_reranking: int
    reranker_score: float | None
    retrievers: dict[str, RetrieverHit]
    document: DocumentBody
    snippet: Snippet | None = None
    explanation: Explanation | None = None


class Results(BaseModel):
    """The hits of one query, best first."""

    query: str
    degraded: list[str] = Field(description="Optional retrievers that did not answer.")
    failures: dict[str, str]
    notes: list[str] = Field(description="Sentences for people who read the results.")
    timings: dict[str, float] = Field(description="Seconds of each stage.")
    hits: list[Hit]


class ManyResults(BaseModel):
    """The results of several queries, in their order."""

    results: list[Results]


class Retriever(BaseModel):
    """A retriever of an index."""

    kind: Literal["lexical", "sparse", "dense", "multi_vector", "text"]
    fingerprint: str
    dimensions: int | None
    metric: str | None
    passages: bool


class Index(BaseModel):
    """An index that is served."""

    name: str
    ready: bool = Field(description="Whether its models are loaded.")
    documents: int
    retrievers: dict[str, Retriever]
    fusion: dict[str, Any]
    candidates: int
    reranker: bool
    optional: list[str]


class Indexes(BaseModel):
    """The indexes that are served."""

    indexes: list[Index] = Field(description="Indexes that answer now.")
    not_answering: list[str] = Field(description="Names of the indexes that do not answer now.")
    may_write: bool = Field(description="Whether this client may store and delete documents.")


class Documents(BaseModel):
    """A part of the list of documents."""

    documents: list[DocumentBody]
    cursor: str | None = Field(description="Value of `after` for the next part. null in the last part.")
    notes: list[str]


class Refused(BaseModel):
    """A document that was not stored."""

    line: int = Field(description="Number of the line or of the document, from 1.")
    id: str | None
    reason: str


class Stored(BaseModel):
    """What happened to the documents of a request."""

    indexed: int = Field(description="Number of documents that were stored.")
    unchanged: int = Field(description="Number of documents that were there already.")
    refused: list[Refused]
    notes: list[str]


class Count(BaseModel):
    """A number of documents."""

    count: int
    notes: list[str]


class Deleted(BaseModel):
    """The number of documents that were deleted."""

    deleted: int
    notes: list[str]


class State(BaseModel):
    """The state of the service."""

    status: Literal["ok", "ready"]
