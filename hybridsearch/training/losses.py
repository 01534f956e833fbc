"""Which losses fit which data, the one to take where none is asked for, and making it.

`print(explain_losses("dense"))` shows those of a kind of model. What sentence-transformers has differs:

    dense         all for pairs, classes, labels, scores and tuples; of the cached ones cached-mnr
    sparse        the same without softmax, so nothing for classes; also cached-margin-mse and cached-kl
    CSR           as sparse, without the cached ones: their gradients are cached around SpladeLoss only
    reranker      binary cross-entropy, MSE, cross-entropy for classes, and those on whole lists
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa

from hybridsearch.arguments import whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.data.rows import columns_of
from hybridsearch.training.settings import ModelKind

if TYPE_CHECKING:
    import torch

Architecture: TypeAlias = Literal["splade", "inference-free", "csr"]
"""What a sparse model is (`hybridsearch.training.models.architectures`)."""

RegularizerSchedule: TypeAlias = Literal["quadratic", "linear", "constant"]
"""How the weights of the regularisers of a sparse model rise from 0."""

_RANKING = "without labels, the other texts of the batch serve as negatives"
_RANKING_TUPLES = "the negatives of a row and the other texts of the batch serve as negatives"
_CACHED = "as without 'cached', in batches larger than memory, of which mini_batch_size texts are encoded at a time"
_ORDER = "learns the order of the scores, whatever their scale"
_TEACHER = "learns the teacher's margins between the positive and each negative"

_EMBEDDING_LOSSES: dict[Kind, dict[str, str]] = {
    Kind.TEXTS: {},
    Kind.EMBEDDED: {"mse": "brings the embeddings of the student to the teacher's"},
    Kind.PAIRS: {"mnr": _RANKING, "cached-mnr": _CACHED},
    Kind.CLASSED: {},
    Kind.LABELLED: {
        "online-contrastive": "learns from the pairs of a batch that are on the wrong side only",
        "contrastive": "pulls pairs of label 1 together and pushes those of 0 apart",
        "cosent": "takes 0 and 1 as scores; " + _ORDER,
        "angle": "takes 0 and 1 as scores; as cosent, by angles in the complex plane",
        "cosine": "takes 0 and 1 as cosines",
    },
    Kind.SCORED: {
        "cosent": _ORDER,
        "angle": "as cosent, by angles in the complex plane, whose gradients do not vanish near 0 and 1",
        "cosine": "brings the cosine of each pair to its score",
    },
    Kind.TUPLES: {
        "mnr": _RANKING_TUPLES,
        "cached-mnr": _CACHED,
        "triplet": "the positive nearer than the negative by a margin; of one negative a row",
    },
    Kind.SCORED_TUPLES: {
        "margin-mse": _TEACHER,
        "kl": "learns how the teacher distributes its scores over the texts of a row",
    },
    Kind.LISTS: {},
}

_LOSSES: dict[ModelKind, dict[Kind, dict[str, str]]] = {
    "dense": {
        **_EMBEDDING_LOSSES,
        Kind.CLASSED: {"softmax": "a classifier over the two embeddings tells the class"},
        Kind.TUPLES: {
            **_EMBEDDING_LOSSES[Kind.TUPLES],
            "angle": "takes the positive for a score of 1 and each negative for 0; as cosent, by angles",
        },
        Kind.SCORED_TUPLES: {"kl": _EMBEDDING_LOSSES[Kind.SCORED_TUPLES]["kl"], "margin-mse": _TEACHER},
    },
    "sparse": {
        **_EMBEDDING_LOSSES,
        Kind.SCORED_TUPLES: {
            **_EMBEDDING_LOSSES[Kind.SCORED_TUPLES],
            "cached-margin-mse": _CACHED,
            "cached-kl": _CACHED,
        },
    },
    "reranker": {
        Kind.TEXTS: {},
        Kind.EMBEDDED: {},
        Kind.PAIRS: {"mnr": _RANKING, "cached-mnr": _CACHED},
        Kind.CLASSED: {"cross-entropy": "one output for each class"},
        Kind.LABELLED: {"bce": "the score becomes the probability of 1", "mse": "brings the score to the label"},
        Kind.SCORED: {"bce": "the score becomes a probability", "mse": "brings the score to the label"},
        Kind.TUPLES: {"mnr": _RANKING_TUPLES, "cached-mnr": _CACHED},
        Kind.SCORED_TUPLES: {"margin-mse": _TEACHER},
        Kind.LISTS: {
            "lambda": "weighs each swap of two documents by what it changes in nDCG",
            "list-net": "learns the distribution over the documents that the labels make",
            "p-list-mle": "learns the order of the labels, its top above all",
            "list-mle": "learns the order of the labels",
            "rank-net": "learns which of two documents is the better one",
            "adr-mse": "brings the ranks of the documents to those of the labels",
        },
    },
}
"""Model kind -> kind of data -> name of a loss -> what it does; the first is the default."""

_NO_SOFTMAX = (
    ", as sentence-transformers has no softmax loss for sparse models: give scores, labels of 0 and 1, or plain pairs"
)
_COSINE_TEMPERATURE = 0.05  # spreads cosines for a softmax; its inverse is the scale of MultipleNegativesRankingLoss
_TEMPERATURES: dict[ModelKind, float] = {"dense": 1.0, "sparse": 2.0, "reranker": 1.0}  # of dot products and logits
_MARGIN = 4.0  # how many temperatures apart a positive and a negative usually are
_CLOSE = 4.0  # scales that differ by a smaller factor are left as they are
_READ = 10_000  # rows that are read to find a scale
_COSINE_MARGIN = 0.2  # the margin of 5 by default is for distances between vectors of any length
_COMPARED = {Kind.SCORED_TUPLES: ("margin-mse", "kl"), Kind.LISTS: ("list-net",)}
"""The losses that compare a teacher's scores with the student's by their size; others go by their order."""

_BOUNDS = {"bce": (0, 1), "cosine": (-1, 1)}
"""The least and greatest score of pairs for a loss that takes them for probabilities or cosines."""

_WITHOUT_MATRYOSHKA = ("softmax",)  # its classifier wants embeddings of one size


@dataclass(frozen=True, slots=True)
class Choice:
    """A loss for some data: its name as in `explain_losses`, and the reason, a sentence to print."""

    name: str
    reason: str
    model_kind: ModelKind
    data_kind: Kind


def choose_loss(model_kind: ModelKind, data: TrainingData, asked: str | None = None) -> Choice:
    """The loss that is asked for, here or by `data.loss`, if it fits; or else the default for this data.

    Raises:
        InvalidArgumentError: it does not fit this data, or none does; a note of it has the table of what fits.

    >>> data = TrainingData.from_columns(Kind.PAIRS, {"anchor": ["What is lift?"], "positive": ["A force."]}, name="qa")
    >>> choose_loss("dense", data).name
    'mnr'
    >>> print(choose_loss("dense", data).reason)
    mnr for 'qa' (pairs): without labels, the other texts of the batch serve as negatives.
    """
    fitting = {name: what for name, what in _table(model_kind)[data.kind].items() if not _obstacle(name, data)}
    asked = asked or data.loss
    if not fitting:
        why = _NO_SOFTMAX if data.kind is Kind.CLASSED and model_kind == "sparse" else ""
        raise _misfit(
            f"No loss trains a {model_kind} model on {data.kind.value}, which {data.name!r} holds{why}", model_kind
        )
    if asked is None:
        name = next(iter(fitting))
        return Choice(name, f"{name} for {data.name!r} ({data.kind.value}): {fitting[name]}.", model_kind, data.kind)
    if not any(asked in losses for kinds in _LOSSES.values() for losses in kinds.values()):
        raise _misfit(f"There is no loss {asked!r}: for {data.name!r} there is {' or '.join(fitting)}", model_kind)
    if asked not in fitting:
        why = _obstacle(asked, data) or f"holds {data.kind.value} (columns {', '.join(data.rows.column_names)})"
        raise _misfit(
            f"The loss {asked!r} does not fit the data {data.name!r}, which {why}: for it there is "
            f"{' or '.join(fitting)} for a {model_kind} model",
            model_kind,
        )
    return Choice(asked, f"{asked} for {data.name!r} ({data.kind.value}): asked for.", model_kind, data.kind)


def to_scale_of(data: TrainingData, choice: Choice, model: Any = None) -> TrainingData:
    """The data with the teacher's scores on the scale of the student's, with a note; unchanged if the scales are close.

    A loss compares these scores with the student's own, so the student must be able to reach them. The margins of a
    teacher that compares by cosine are below 1, those of a sparse student's dot products about 8. Trained on such
    margins, the student forgets all that it knew. A student with cosines cannot reach the margins of logits. The scores
    are multiplied until the root mean square of their margins is usual for the student.

    Args:
        data: of any kind; only scores of tuples and lists are compared by their size.
        choice: of `choose_loss`, for this data.
        model: the student; needed for a dense one, which compares by cosine or by dot product.

    Raises:
        InvalidArgumentError: the teacher gives all texts of a row the same score, in each row.
    """
    name = choice.name.removeprefix("cached-")
    if name not in _COMPARED.get(data.kind, ()):
        return data
    label = str(data.label)
    labels = data.rows[: min(len(data), _READ)][label]
    if data.kind is Kind.LISTS and all(float(grade).is_integer() for of_row in labels for grade in of_row):
        return data  # grades of people
    negatives = sum(column.startswith("negative_") for column in data.inputs)
    margins = [
        margin
        for of_row in labels
        for margin in (of_row if len(of_row) == negatives else [max(of_row) - score for score in of_row])
        if margin
    ]
    if not margins:
        raise InvalidArgumentError(
            f"The teacher of {data.name!r} gives all texts of a row the same score, so there is nothing to learn: take "
            "another teacher, or other negatives."
        )
    usual = math.sqrt(sum(margin * margin for margin in margins) / len(margins))
    wanted = _MARGIN * _temperature(choice.model_kind, model)
    factor = float(f"{wanted / usual:.2g}")
    if 1 / _CLOSE <= factor <= _CLOSE:
        return data
    scaled = pa.array([[factor * score for score in of_row] for of_row in data.rows[label]], pa.list_(pa.float64()))
    rows = data.rows.remove_columns([label]).add_column(label, scaled)
    note = (
        f"the teacher's scores were multiplied by {factor:g}, because its margins are about {usual:.2g} and those of "
        f"such a student about {wanted:.2g}"
    )
    return replace(data, rows=rows, notes=(*data.notes, note))


def explain_losses(model_kind: ModelKind, kind: Kind | None = None) -> str:
    """The losses that fit each kind of data, or one kind, the default first: a table to print.

    >>> print(explain_losses("dense", Kind.SCORED))
    data              columns                  losses, the default first
    pairs with score  anchor, positive, label  cosent, angle, cosine
    """
    rows = [("data", "columns", "losses, the default first")]
    for of, losses in _table(model_kind).items():
        if losses and kind in (None, of):
            columns = ["negative_1, ..." if name == "negative_1" else name for name in columns_of(of, 1)]
            rows.append((of.value, ", ".join(columns), ", ".join(losses)))
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    return "\n".join(f"{first:{widths[0]}}  {second:{widths[1]}}  {third}" for first, second, third in rows)


def build_loss(
    choice: Choice,
    model: Any,
    data: TrainingData,
    *,
    matryoshka_dims: Sequence[int] | None = None,
    mini_batch_size: int | None = None,
    architecture: Architecture | None = None,
    document_regularizer_weight: float = 1e-4,
    query_regularizer_weight: float = 1e-4,
) -> torch.nn.Module:
    """The loss of sentence-transformers by that name, for its trainer.

    Args:
        choice: of `choose_loss`, for this data.
        model: a SentenceTransformer, SparseEncoder or CrossEncoder, as the choice says.
        data: what it will be fed.
        matryoshka_dims: dense: dimensions to which embeddings may later be cut; the full one is added.
        mini_batch_size: texts (or pairs) encoded at a time, of the cached losses and those on lists; 32 by default.
        architecture: sparse: what the model is. "splade" and "inference-free" are trained by SpladeLoss (Formal et
            al., arXiv:2205.04733), "csr" by CSRLoss (Wen et al., arXiv:2503.01776) around the loss.
        document_regularizer_weight, query_regularizer_weight: sparse: as in `hybridsearch.train_sparse`.

    Raises:
        InvalidArgumentError: an option does not go with the loss or the model.
    """
    if matryoshka_dims is not None and choice.model_kind != "dense":
        raise InvalidArgumentError(f"matryoshka_dims is an option of dense models, not of a {choice.model_kind} model.")
    size = 32 if mini_batch_size is None else mini_batch_size
    size = whole_number("mini_batch_size", size, sentence="{name} is at least 1, not {value}.")
    if choice.model_kind == "reranker":
        return _reranker_loss(choice, model, data, size)
    if choice.model_kind == "sparse":
        weights = (document_regularizer_weight, query_regularizer_weight)
        return _sparse_loss(choice, model, data, size, architecture or "splade", weights)
    loss = _dense_loss(choice, model, data, size)
    return loss if matryoshka_dims is None else _matryoshka(choice, model, loss, matryoshka_dims)


def _dense_loss(choice: Choice, model: Any, data: TrainingData, mini_batch_size: int) -> torch.nn.Module:
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer import losses

    if choice.name == "mse" and (size := len(data.rows[0]["label"])) != model.get_embedding_dimension():
        raise InvalidArgumentError(
            f"The embeddings of {data.name!r} have {size} dimensions, but the model's "
            f"{model.get_embedding_dimension()}: take a teacher with as many, or reduce its embeddings by PCA."
        )
    similarity = util.pairwise_cos_sim if _compares_by_cosine(model) else util.pairwise_dot_score
    make: Mapping[str, Callable[[], torch.nn.Module]] = {
        "mnr": lambda: losses.MultipleNegativesRankingLoss(model),
        "cached-mnr": lambda: losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size),
        "triplet": lambda: losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, _COSINE_MARGIN),
        "cosent": lambda: losses.CoSENTLoss(model),
        "angle": lambda: losses.AnglELoss(model),
        "cosine": lambda: losses.CosineSimilarityLoss(model),
        "contrastive": lambda: losses.ContrastiveLoss(model),
        "online-contrastive": lambda: losses.OnlineContrastiveLoss(model),
        "softmax": lambda: losses.SoftmaxLoss(model, model.get_embedding_dimension(), count_classes(data)),
        "margin-mse": lambda: losses.MarginMSELoss(model, similarity),
        "kl": lambda: losses.DistillKLDivLoss(model, similarity, temperature=_temperature("dense", model)),
        "mse": lambda: losses.MSELoss(model),
    }
    return make[choice.name]()


def _sparse_loss(
    choice: Choice,
    model: Any,
    data: TrainingData,
    mini_batch_size: int,
    architecture: Architecture,
    weights: tuple[float, float],
) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses as dense
    from sentence_transformers.sparse_encoder import losses

    name = choice.name.removeprefix("cached-")
    make: Mapping[str, Callable[[], torch.nn.Module]] = {
        "mnr": lambda: losses.SparseMultipleNegativesRankingLoss(model),
        "triplet": lambda: losses.SparseTripletLoss(model),
        "cosent": lambda: losses.SparseCoSENTLoss(model),
        "angle": lambda: losses.SparseAnglELoss(model),
        "cosine": lambda: losses.SparseCosineSimilarityLoss(model),
        "contrastive": lambda: dense.ContrastiveLoss(model),
        "online-contrastive": lambda: dense.OnlineContrastiveLoss(model),
        "margin-mse": lambda: losses.SparseMarginMSELoss(model),
        "kl": lambda: losses.SparseDistillKLDivLoss(model, temperature=_TEMPERATURES["sparse"]),
        "mse": lambda: losses.SparseMSELoss(model),
    }
    loss = make[name]()
    if name == "mse":  # the teacher's embeddings are sparse already
        return loss
    cached = name != choice.name
    if architecture == "csr":
        if cached:
            raise InvalidArgumentError(
                f"The loss {choice.name!r} is not there for a CSR model, as sentence-transformers has no cached "
                f"CSRLoss: take {name!r}, with a smaller batch_size."
            )
        return losses.CSRLoss(model, loss)
    of_documents, of_queries = weights
    if architecture == "inference-free":
        of_queries = 0.0  # queries have as many dimensions as tokens; None would log a warning
    if min(weights) < 0:
        raise InvalidArgumentError(f"Weights of regularisers are 0 or more, not {min(weights):g}.")
    if cached:
        return losses.CachedSpladeLoss(
            model,
            loss,
            document_regularizer_weight=of_documents,
            query_regularizer_weight=of_queries,
            mini_batch_size=mini_batch_size,
        )
    return losses.SpladeLoss(model, loss, document_regularizer_weight=of_documents, query_regularizer_weight=of_queries)


def _reranker_loss(choice: Choice, model: Any, data: TrainingData, mini_batch_size: int) -> torch.nn.Module:
    from sentence_transformers.cross_encoder import losses

    outputs = model.num_labels
    wanted = count_classes(data) if choice.name == "cross-entropy" else 1
    if outputs != wanted:
        raise InvalidArgumentError(
            f"The loss {choice.name!r} on {data.name!r} needs a model with num_labels={wanted}, "
            f"but this one has {outputs}: load it with num_labels={wanted}."
        )
    make: Mapping[str, Callable[[], torch.nn.Module]] = {
        "bce": lambda: losses.BinaryCrossEntropyLoss(model, pos_weight=_positive_weight(data)),
        "mse": lambda: losses.MSELoss(model),
        "cross-entropy": lambda: losses.CrossEntropyLoss(model),
        "mnr": lambda: losses.MultipleNegativesRankingLoss(model),
        "cached-mnr": lambda: losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size),
        "margin-mse": lambda: losses.MarginMSELoss(model),
        "lambda": lambda: losses.LambdaLoss(model, mini_batch_size=mini_batch_size),
        "list-net": lambda: losses.ListNetLoss(model, mini_batch_size=mini_batch_size),
        "p-list-mle": lambda: losses.PListMLELoss(model, mini_batch_size=mini_batch_size),
        "list-mle": lambda: losses.ListMLELoss(model, mini_batch_size=mini_batch_size),
        "rank-net": lambda: losses.RankNetLoss(model, mini_batch_size=mini_batch_size),
        "adr-mse": lambda: losses.ADRMSELoss(model, mini_batch_size=mini_batch_size),
    }
    return make[choice.name]()


def _matryoshka(choice: Choice, model: Any, loss: torch.nn.Module, dims: Sequence[int]) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses

    full = model.get_embedding_dimension()
    if choice.name in _WITHOUT_MATRYOSHKA:
        raise InvalidArgumentError(f"The loss {choice.name!r} cannot be trained at several dimensions at once.")
    if not dims or min(dims) < 1 or max(dims) > full:
        raise InvalidArgumentError(
            f"matryoshka_dims are from 1 to the model's {full} dimensions, such as {[full, full // 2, full // 4]}, "
            f"not {list(dims)}."
        )
    return losses.MatryoshkaLoss(model, loss, sorted({full, *dims}, reverse=True))


def count_classes(data: TrainingData) -> int:
    """How many classes the labels have: those with names, or the largest number and one more; at least 2."""
    feature = data.rows.features["label"]
    return int(getattr(feature, "num_classes", 0)) or max(2, max(data.rows["label"]) + 1)


def _misfit(reason: str, model_kind: ModelKind) -> InvalidArgumentError:
    error = InvalidArgumentError(f"{reason}.")
    error.add_note(f"What fits a {model_kind} model:\n{explain_losses(model_kind)}")
    return error


def _table(model_kind: ModelKind) -> dict[Kind, dict[str, str]]:
    if model_kind not in _LOSSES:
        raise InvalidArgumentError(f"A model is one of {', '.join(_LOSSES)}, not {model_kind!r}.")
    return _LOSSES[model_kind]


def _obstacle(name: str, data: TrainingData) -> str:
    """Why a loss does not fit this data though it fits the kind; "" where it does."""
    negatives = sum(column.startswith("negative_") for column in data.inputs)
    if name == "triplet" and data.kind is Kind.TUPLES and negatives > 1:
        return f"has {negatives} negatives a row, where it takes one"
    if name.removeprefix("cached-") == "kl" and data.kind is Kind.SCORED_TUPLES:
        scores = len(data.rows[0]["label"])
        if scores == negatives:
            return "has margins, where it takes the score of each text"
    if data.kind is Kind.SCORED and name in _BOUNDS:
        low, high = _BOUNDS[name]
        least, most = min(data.rows["label"]), max(data.rows["label"])
        if least < low or most > high:
            return f"has scores from {least:.3g} to {most:.3g}, where it takes {low} to {high}"
    if data.kind is Kind.LISTS and name == "lambda" and (least := min(map(min, data.rows["labels"]))) < 0:
        return f"has scores from {least:.3g}, where it takes grades of 0 and more"
    return ""


def _temperature(model_kind: ModelKind, model: Any) -> float:
    """What a model's scores are divided by, for a softmax over the texts of a row."""
    return _COSINE_TEMPERATURE if model_kind == "dense" and _compares_by_cosine(model) else _TEMPERATURES[model_kind]


def _compares_by_cosine(model: Any) -> bool:
    """Whether a dense model compares by cosine, or its embeddings have length 1: a dot product is then a cosine."""
    from sentence_transformers.base.modules import Normalize

    return model.similarity_fn_name == "cosine" or any(isinstance(module, Normalize) for module in model)


def _positive_weight(data: TrainingData) -> torch.Tensor | None:
    """How many pairs of label 0 there are for one of 1; None where labels are scores."""
    import torch

    if data.kind is not Kind.LABELLED:
        return None
    positive = sum(data.rows["label"])
    return torch.tensor((len(data) - positive) / positive) if 0 < positive < len(data) else None
