"""The bodies of requests, as models of pydantic. `hybridsearch.search` checks everything that they leave open."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from hybridsearch.documents import Document
from hybridsearch.errors import FilterError, InvalidArgumentError
from hybridsearch.feedback import RM3, Feedback, Rocchio
from hybridsearch.fusion import Fusion, make_fusion
from hybridsearch.rerank import MMR, Boost, FieldBoost, Recency
from hybridsearch.search import CONFIGURED, SearchOptions
from hybridsearch.service.settings import Settings

Json: TypeAlias = dict[str, Any]

LARGEST = 2**31 - 1
"""Largest offset."""

_FILTER = 'Filter on metadata, title or id, such as `{"year": {"$gte": 2020}}`.'

_SEARCHES: tuple[Json, ...] = (
    {"query": "squealing brakes", "top_k": 5, "filter": {"year": {"$gte": 2022}}, "snippets": True},
    {"queries": ["squealing brakes", "flat tyre"], "fusion": {"type": "rrf", "k": 10}, "rerank": False},
)

COMPONENT = "x-component"
"""Mark of a type that OpenAPI describes by a component of `hybridsearch.service.openapi`."""

FilterBody: TypeAlias = Annotated[Json, WithJsonSchema({COMPONENT: "Filter"})]
Metadata: TypeAlias = Annotated[Json, WithJsonSchema({COMPONENT: "Metadata"})]
RetrieverName: TypeAlias = Annotated[str, WithJsonSchema({COMPONENT: "RetrieverName"})]
Weights: TypeAlias = Annotated[dict[str, float], WithJsonSchema({COMPONENT: "Weights"})]
Scores: TypeAlias = Annotated[dict[str, float], WithJsonSchema({COMPONENT: "Scores"})]


def _one_of(first: str, second: str, kinds: tuple[str, str], *examples: Json) -> Json:
    """The part of a JSON Schema that says that an object has one member and not the other, with examples."""
    null, (kind, other) = {"type": "null"}, kinds
    return {
        "examples": list(examples),
        "oneOf": [
            {"required": [first], "properties": {first: {"type": kind}, second: null}},
            {"required": [second], "properties": {second: {"type": other}, first: null}},
        ],
    }


class Strict(BaseModel):
    """A body that refuses unknown members, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def without_point(cls, given: Any) -> Any:
        """The members of a body with 5 in place of 5.0, because JSON does not tell one from the other."""
        if not isinstance(given, dict):
            return given
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in given.items()
        }

    @model_validator(mode="wrap")
    @classmethod
    def naming_members(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """The checked body. The error of an unknown member names the members that are known."""
        try:
            return check(given)
        except ValidationError as error:
            if not any(map(_is_unknown_member, error.errors())):
                raise
            found = [_with_members(one, list(cls.model_fields)) for one in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, found) from None


def _is_unknown_member(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden" and len(error["loc"]) == 1


def _with_members(error: ErrorDetails, members: list[str]) -> InitErrorDetails:
    """An error as it was. If it is about an unknown member, it also has the known members."""
    context = error.get("ctx", {}) | ({"known": members} if _is_unknown_member(error) else {})
    made = PydanticCustomError(error["type"], error["msg"], context)
    return {"type": made, "loc": error["loc"], "input": error["input"]}


class DocumentBody(Strict):
    """A document."""

    id: str = Field(min_length=1, max_length=512, description="Id, at most 512 bytes of UTF-8.")
    text: str = Field(examples=["Charge it indoors."])
    title: str = Field(default="", examples=["Battery"])
    metadata: Metadata = Field(default={}, description="Values for filters and for display, by name.")

    def made(self) -> Document:
        """The document."""
        return Document(self.id, self.text, self.title, self.metadata)


class DocumentFields(Strict):
    """A document whose id is in the address."""

    text: str = Field(examples=["Charge it indoors."])
    title: str = Field(default="", examples=["Battery"])
    metadata: Metadata = Field(default={}, description="Values for filters and for display, by name.")


_NO_EFFECT = "Has no effect. `hybridsearch calibrate` writes it."


class FusionSettings(Strict):
    """A fusion with its settings, as `Fusion.save` writes it."""

    weights: Weights | None = Field(
        default=None, description="Weights by retriever. 0 leaves a retriever out. Default: equal weights."
    )
    tuned_on: str | None = Field(default=None, description="Has no effect. `hybridsearch tune` writes it.")

    def made(self) -> Fusion:
        """The fusion."""
        return make_fusion(self.model_dump(exclude_none=True))


class RRFSettings(FusionSettings):
    """Reciprocal rank fusion."""

    type: Literal["rrf"]
    k: float = Field(default=60, ge=0, description="Number that is added to each rank.")


class ScoreFusionSettings(FusionSettings):
    """Score fusion."""

    type: Literal["score"]
    normalization: Literal["minmax", "zscore", "none"] = Field(default="minmax", description="How scores are scaled.")


class AdaptiveFusionSettings(FusionSettings):
    """Adaptive fusion."""

    type: Literal["adaptive"]


class StrengthSettings(Strict):
    """Strength of a retriever. It has no effect."""

    mean: float
    error: float
    weight_error: float
    graded: float


class JudgedFusionSettings(FusionSettings):
    """Judged fusion."""

    type: Literal["judged"]
    strengths: dict[str, StrengthSettings] | None = Field(default=None, max_length=100, description=_NO_EFFECT)
    queries: int = Field(default=0, ge=0, description=_NO_EFFECT)
    judge: str = Field(default="", description=_NO_EFFECT)


AnyFusion: TypeAlias = Annotated[
    RRFSettings | ScoreFusionSettings | AdaptiveFusionSettings | JudgedFusionSettings, Field(discriminator="type")
]


class RecencyBoost(Strict):
    """A boost for recent documents."""

    type: Literal["recency"]
    field: str = Field(min_length=1, description="Metadata field that holds a date.")
    half_life: str = Field(
        default="30d",
        pattern=r"^([1-9][0-9]{0,5}(\.[0-9]{1,6})?|0\.0{0,5}[1-9][0-9]{0,5})[smhdwy]$",
        description="Age at which half of the weight is left, such as 12h, 30d or 1y.",
    )
    weight: float = Field(default=0.25, gt=0, le=1e6)

    def made(self) -> Boost:
        """The boost."""
        return Recency(self.field, self.half_life, self.weight)


class FieldBoostSettings(Strict):
    """A boost for documents that match a filter, or that have a large number in a field."""

    type: Literal["field"]
    where: Annotated[str, Field(min_length=1)] | FilterBody = Field(
        description="Name of a field with numbers, or a filter."
    )
    weight: float = Field(default=0.25, gt=0, le=1e6)

    def made(self) -> Boost:
        """The boost."""
        return FieldBoost(self.where, self.weight)


class Diversity(Strict):
    """Maximal marginal relevance: hits that differ from each other."""

    relevance: float = Field(default=0.7, ge=0, le=1, description="Weight of the score. 1 keeps the order.")
    depth: int = Field(default=100, ge=1, le=1000, description="Number of first hits that are compared.")
    retriever: RetrieverName | None = Field(default=None, description="Retriever whose vectors are compared.")

    def made(self) -> MMR:
        """The MMR."""
        return MMR(self.relevance, self.depth, self.retriever)


class RM3Settings(Strict):
    """Feedback for BM25: frequent terms of the first documents are added to the query."""

    documents: int = Field(default=10, ge=1, le=100, description="Number of first documents that are read.")
    terms: int = Field(default=10, ge=1, le=100, description="Number of terms of a document, and of all together.")
    original: float = Field(default=0.5, ge=0, le=1, description="Weight of the original query.")
    max_share: float = Field(default=0.1, ge=0, le=1, description="Largest share of documents that may have a term.")
    retriever: RetrieverName | None = Field(default=None, description="Retriever. Default: each BM25 retriever.")

    def made(self) -> Feedback:
        """The feedback."""
        return RM3(self.documents, self.terms, self.original, self.max_share, self.retriever)


class RocchioSettings(Strict):
    """Feedback for dense and sparse retrievers: the query moves towards the first documents."""

    documents: int = Field(default=3, ge=1, le=100, description="Number of first documents that are read.")
    alpha: float = Field(default=0.9, ge=0, le=1e6, description="Weight of the query.")
    beta: float = Field(default=0.1, ge=0, le=1e6, description="Weight of the mean of the documents.")
    retriever: RetrieverName | None = Field(
        default=None, description="Retriever. Default: each dense or sparse retriever."
    )

    def made(self) -> Feedback:
        """The feedback."""
        return Rocchio(self.documents, self.alpha, self.beta, self.retriever)


class FeedbackSettings(Strict):
    """Feedback: the first documents of a retriever expand its query, and it searches again."""

    rm3: RM3Settings | None = None
    rocchio: RocchioSettings | None = None

    def made(self) -> list[Feedback]:
        """The feedback."""
        return [one.made() for one in (self.rm3, self.rocchio) if one is not None]


class SnippetSettings(Strict):
    """How snippets are made."""

    length: int = Field(default=200, ge=1, le=10_000, description="Number of characters of a snippet.")
    models: bool = Field(
        default=False, description="Whether models read the texts to find highlights. This takes longer."
    )


class SearchBody(Strict):
    """A search. Give `query`, or `queries` for several at once."""

    model_config = ConfigDict(json_schema_extra=_one_of("query", "queries", ("string", "array"), *_SEARCHES))

    query: str | None = Field(default=None, description="Text of the query.")
    queries: list[str] | None = Field(
        default=None, description="Texts of several queries, which are searched together."
    )
    top_k: int = Field(default=10, ge=1, description="Number of hits for each query.")
    offset: int = Field(
        default=0, ge=0, le=LARGEST, description="Number of first hits to leave out, for the next page."
    )
    filter: FilterBody | None = Field(default=None, description=_FILTER)
    retrievers: list[RetrieverName] | None = Field(
        default=None, min_length=1, max_length=100, description="Names of the retrievers to ask."
    )
    candidates: int | None = Field(
        default=None, ge=1, description="Number of documents that are read from each retriever."
    )
    fusion: Literal["rrf", "minmax", "zscore", "adaptive"] | AnyFusion | None = Field(
        default=None,
        description="Fusion that merges the rankings: a name, or settings as `Fusion.save` writes them.",
    )
    rerank: bool = Field(
        default=True, description="Whether the reranker of the index is used. A note says if true has no effect."
    )
    min_score: float | Scores | None = Field(
        default=None, description="Least score of a hit, or least scores by retriever."
    )
    boost: list[Annotated[RecencyBoost | FieldBoostSettings, Field(discriminator="type")]] = Field(
        default=[], max_length=10, description="Boosts that raise scores by metadata."
    )
    group_by: str | None = Field(
        default=None, min_length=1, description="Metadata field. Documents with the same value are one hit, the best."
    )
    diversity: Diversity | None = None
    feedback: FeedbackSettings | None = None
    snippets: bool | SnippetSettings = Field(
        default=False, description="Whether each hit has a snippet: the part of its text that fits the query best."
    )
    passages: bool = Field(default=True, description="Whether hits of an index with passages list their best passages.")
    explain: bool = Field(default=False, description="Whether each hit has an explanation.")

    @property
    def asked(self) -> Sequence[str]:
        """The queries."""
        if (self.query is None) == (self.queries is None):
            both = "neither is" if self.query is None else "both are"
            raise InvalidArgumentError(f"A search takes query or queries, but {both} given: give one of them.")
        return [self.query] if self.query is not None else self.queries or []

    @property
    def filters(self) -> Sequence[Any]:
        """The filters of the search and of its boosts."""
        return [self.filter, *(one.where for one in self.boost if isinstance(one, FieldBoostSettings))]

    @property
    def options(self) -> SearchOptions:
        """The other arguments of `HybridSearch.search`."""
        fusion = self.fusion.made() if isinstance(self.fusion, FusionSettings) else self.fusion
        return {
            "filter": self.filter,
            "retrievers": self.retrievers,
            "candidates": self.candidates,
            "fusion": fusion,
            "reranker": CONFIGURED if self.rerank else None,
            "offset": self.offset,
            "min_score": self.min_score,
            "boost": [one.made() for one in self.boost],
            "group_by": self.group_by,
            "diversity": None if self.diversity is None else self.diversity.made(),
            "feedback": None if self.feedback is None else self.feedback.made(),
        }


class Removal(Strict):
    """The documents to delete. Give `ids` or `filter`."""

    model_config = ConfigDict(json_schema_extra=_one_of("ids", "filter", ("array", "object"), {"ids": ["a1"]}))

    ids: list[str] | None = Field(default=None, max_length=10_000, description="Ids of documents.")
    filter: FilterBody | None = Field(default=None, description=_FILTER)


class Explained(Strict):
    """The query and the document to explain."""

    query: str = Field(description="Text of the query.", examples=["squealing brakes"])
    id: str = Field(min_length=1, description="Id of the document.", examples=["a1"])
    retrievers: list[RetrieverName] | None = Field(
        default=None, min_length=1, max_length=100, description="Names of the retrievers to ask."
    )
    candidates: int | None = Field(
        default=None, ge=1, description="Number of documents that are read from each retriever."
    )
    feedback: FeedbackSettings | None = None


def explained_body(limits: Settings) -> type[Explained]:
    """The model of explanations within these limits."""
    own = {name: copy(field) for name, field in Explained.model_fields.items()}
    return create_model(
        "Explain",
        __base__=Explained,
        query=(Annotated[str, Field(max_length=limits.max_query)], own["query"]),
        candidates=(Annotated[int, Field(le=limits.max_candidates)] | None, own["candidates"]),
    )


def checked_filter(filter: Any, limits: Settings) -> Any:
    """A filter that is within the limits of depth and size. The index checks the rest.

    Raises:
        FilterError: The filter is too deep, or has too many values.
    """
    level, values, depth = [filter] if isinstance(filter, dict | list) else [], 0, 0
    while level:
        inner = [one for value in level for one in (value.values() if isinstance(value, dict) else value)]
        level = [one for one in inner if isinstance(one, dict | list)]
        values, depth = values + len(inner), depth + 1
        if depth > limits.max_filter_depth or values > limits.max_filter_values:
            raise FilterError(
                f"The filter is too large: at most {limits.max_filter_depth} levels and {limits.max_filter_values:,} "
                "values are allowed."
            )
    return filter


def search_body(limits: Settings) -> type[SearchBody]:
    """The model of searches within these limits."""
    query = Annotated[str, Field(max_length=limits.max_query)]
    own = {name: copy(field) for name, field in SearchBody.model_fields.items()}
    return create_model(
        "Search",
        __base__=SearchBody,
        query=(query | None, own["query"]),
        queries=(Annotated[list[query], Field(min_length=1, max_length=limits.max_queries)] | None, own["queries"]),
        top_k=(Annotated[int, Field(le=limits.max_top_k)], own["top_k"]),
        candidates=(Annotated[int, Field(le=limits.max_candidates)] | None, own["candidates"]),
    )
