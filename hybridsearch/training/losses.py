"""Find the losses that fit some data, choose one of them, and make it.

`print(explain_losses("dense"))` shows the losses for a kind of model. sentence-transformers has these losses:

    dense         losses for pairs, classes, labels, scores, tuples and single texts
    sparse        the same losses without softmax, so no loss for classes; also cached-margin-mse and cached-kl
    CSR           the losses of sparse models without the cached losses, which work with SpladeLoss only
    late          losses for pairs and tuples, which compare by MaxSim
    reranker      binary cross-entropy, MSE, cross-entropy for classes, losses on tuples, and losses on whole lists
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa

from hybridsearch.arguments import number, shown, whole_number
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData
from hybridsearch.training.data.rows import columns_of
from hybridsearch.training.models.loading import dimensions_of
from hybridsearch.training.settings import ModelKind

if TYPE_CHECKING:
    import torch

Architecture: TypeAlias = Literal["splade", "inference-free", "csr"]
"""Architecture of a sparse model (`hybridsearch.training.models.architectures`)."""

RegularizerSchedule: TypeAlias = Literal["quadratic", "linear", "constant"]
"""How the weights of the regularisers of a sparse model rise from 0."""

_RANKING = "the data have no labels, so the other texts of the batch serve as negatives"
_RANKING_TUPLES = "the negatives of a row and the other texts of the batch serve as negatives"
_CACHED = "works as the loss without 'cached', and encodes mini_batch_size texts at a time, so batches can be large"
_ORDER = "learns the order of the scores, on any scale"
_TEACHER = "learns the teacher's margins between the positive and each negative"

_GIST = "works as mnr, without the negatives that the guide finds nearer than the positive"

_EMBEDDING_LOSSES: dict[Kind, dict[str, str]] = {
    Kind.TEXTS: {},
    Kind.CLASSED_TEXTS: {},
    Kind.EMBEDDED: {"mse": "brings the embeddings of the student close to the embeddings of the teacher"},
    Kind.PAIRS: {"mnr": _RANKING, "cached-mnr": _CACHED},
    Kind.CLASSED: {},
    Kind.LABELLED: {
        "online-contrastive": "learns only from the hard pairs of a batch, which are on the wrong side",
        "contrastive": "pulls pairs with label 1 together and pushes pairs with label 0 apart",
        "cosent": "takes 0 and 1 as scores, and " + _ORDER,
        "angle": "takes 0 and 1 as scores, and works as cosent with angles in the complex plane",
        "cosine": "takes 0 and 1 as cosines",
    },
    Kind.SCORED: {
        "cosent": _ORDER,
        "angle": "works as cosent with angles in the complex plane, so gradients do not vanish near 0 and 1",
        "cosine": "brings the cosine of each pair to its score",
    },
    Kind.TUPLES: {
        "mnr": _RANKING_TUPLES,
        "cached-mnr": _CACHED,
        "triplet": "brings the positive nearer than the negative by a margin, for rows with one negative",
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
        Kind.TEXTS: {"tsdae": "deletes 60% of the tokens of a text, and a decoder restores it from the embedding"},
        Kind.CLASSED_TEXTS: {
            "batch-hard": "brings the farthest text of the class nearer than the nearest text of another class",
            "batch-semi-hard": "does this with texts of other classes that are farther than the text of the class",
            "batch-all": "does this with all triplets of a batch that are not yet apart by the margin",
            "batch-hard-soft-margin": "works as batch-hard, without a margin to set",
        },
        Kind.PAIRS: {**_EMBEDDING_LOSSES[Kind.PAIRS], "gist": _GIST, "cached-gist": _CACHED},
        Kind.CLASSED: {"softmax": "a classifier predicts the class from the two embeddings"},
        Kind.TUPLES: {
            **_EMBEDDING_LOSSES[Kind.TUPLES],
            "angle": "scores the positive 1 and each negative 0, and works as cosent with angles",
            "gist": _GIST,
            "cached-gist": _CACHED,
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
    "late-interaction": {
        **{kind: {} for kind in Kind},
        Kind.PAIRS: _EMBEDDING_LOSSES[Kind.PAIRS],
        Kind.TUPLES: {"mnr": _RANKING_TUPLES, "cached-mnr": _CACHED},
        Kind.SCORED_TUPLES: {"kl": _EMBEDDING_LOSSES[Kind.SCORED_TUPLES]["kl"], "margin-mse": _TEACHER},
    },
    "reranker": {
        Kind.TEXTS: {},
        Kind.EMBEDDED: {},
        Kind.CLASSED_TEXTS: {},
        Kind.PAIRS: {"mnr": _RANKING, "cached-mnr": _CACHED},
        Kind.CLASSED: {"cross-entropy": "trains one output for each class"},
        Kind.LABELLED: {"bce": "takes the score as the probability of label 1", "mse": "brings the score to the label"},
        Kind.SCORED: {"bce": "takes the score as a probability", "mse": "brings the score to the label"},
        Kind.TUPLES: {"mnr": _RANKING_TUPLES, "cached-mnr": _CACHED},
        Kind.SCORED_TUPLES: {"margin-mse": _TEACHER},
        Kind.LISTS: {
            "lambda": "weighs each swap of two documents by its change of nDCG",
            "list-net": "learns the distribution of the labels over the documents",
            "p-list-mle": "learns the order of the labels, and weighs the top of the order most",
            "list-mle": "learns the order of the labels",
            "rank-net": "learns which of two documents is the better one",
            "adr-mse": "brings the ranks of the documents to the ranks of the labels",
        },
    },
}
"""What each loss does, by kind of model, kind of data and name of the loss; the first loss is the default."""

_NO_SOFTMAX = (
    ", because sentence-transformers has no softmax loss for sparse models. Give scores, labels of 0 and 1, or plain "
    "pairs"
)
_COSINE_TEMPERATURE = 0.05  # spreads cosines for a softmax; its inverse is the scale of MultipleNegativesRankingLoss
_TEMPERATURES: dict[ModelKind, float] = {"dense": 1.0, "sparse": 2.0, "late-interaction": 1.0, "reranker": 1.0}
"""The temperature of dot products, of sums of cosines (MaxSim) and of logits."""

_MARGIN = 4.0  # usual distance between a positive and a negative, in temperatures
_CLOSE = 4.0  # scales that differ by a smaller factor do not change
_READ = 10_000  # rows that are read to find a scale
_COSINE_MARGIN = 0.2  # the default margin of 5 is for distances between vectors of any length
_COMPARED = {Kind.SCORED_TUPLES: ("margin-mse", "kl"), Kind.LISTS: ("list-net",)}
"""The losses that compare the size of a teacher's scores with the student's; other losses compare their order."""

_BOUNDS = {"bce": (0, 1), "cosine": (-1, 1)}
"""The least and greatest score of a pair for losses that take scores as probabilities or cosines."""

_WITHOUT_MATRYOSHKA = ("softmax", "SoftmaxLoss", "tsdae", "MatryoshkaLoss", "Matryoshka2dLoss")
"""Losses that need embeddings of one size, such as the classifier of softmax, or have several sizes already."""

_GUIDED = ("gist", "cached-gist")
_OF_CLASSES = ("batch-hard", "batch-semi-hard", "batch-all", "batch-hard-soft-margin")
_DELETED = 0.6


@dataclass(frozen=True, slots=True)
class Choice:
    """A loss that was chosen for some data, and the reason.

    Attributes:
        name: Name of the loss, as in `explain_losses`.
        reason: Reason for the choice, a sentence to print.
        model_kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        data_kind: Kind of the data.
    """

    name: str
    reason: str
    model_kind: ModelKind
    data_kind: Kind


def choose_loss(model_kind: ModelKind, data: TrainingData, asked: str | None = None) -> Choice:
    """Choose a loss that fits some data: the given loss, or the default for this kind of data.

    Args:
        model_kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        data: Training data.
        asked: Name of a loss. None takes `data.loss`, and if that is None too, the default.

    Returns:
        The name of the loss and the reason.

    Raises:
        InvalidArgumentError: The named loss does not fit this data, or no loss fits. A note of the error has the table
            of the losses that fit.

    >>> data = TrainingData.from_columns(Kind.PAIRS, {"anchor": ["What is lift?"], "positive": ["A force."]}, name="qa")
    >>> choose_loss("dense", data).name
    'mnr'
    >>> print(choose_loss("dense", data).reason)
    mnr for 'qa' (pairs): the data have no labels, so the other texts of the batch serve as negatives.
    """
    fitting = {name: what for name, what in _table(model_kind)[data.kind].items() if not _obstacle(name, data)}
    asked = asked or data.loss
    if not fitting:
        obstacles = [_obstacle(name, data) for name in _table(model_kind)[data.kind]]
        why = f", because the data {obstacles[0]}" if obstacles else ""
        if data.kind is Kind.CLASSED and model_kind == "sparse":
            why = _NO_SOFTMAX
        raise _misfit(
            f"{data.name!r} holds {data.kind.value}. No loss trains a {model_kind} model on them{why}", model_kind
        )
    if asked is None:
        name = next(iter(fitting))
        return Choice(name, f"{name} for {data.name!r} ({data.kind.value}): {fitting[name]}.", model_kind, data.kind)
    if not any(asked in losses for kinds in _LOSSES.values() for losses in kinds.values()):
        raise _misfit(f"There is no loss {asked!r}. For {data.name!r}, take {' or '.join(fitting)}", model_kind)
    if asked not in fitting:
        why = _obstacle(asked, data) or f"holds {data.kind.value} (columns {', '.join(data.rows.column_names)})"
        raise _misfit(
            f"The loss {asked!r} does not fit the data {data.name!r}, which {why}. For a {model_kind} model on this "
            f"data, take {' or '.join(fitting)}",
            model_kind,
        )
    return choice_of(model_kind, data, asked)


def choice_of(model_kind: ModelKind, data: TrainingData, name: str) -> Choice:
    """The choice of a loss that the user asked for by this name, without a check."""
    return Choice(name, f"{name} for {data.name!r} ({data.kind.value}): as you asked.", model_kind, data.kind)


def to_scale_of(data: TrainingData, choice: Choice, model: Any = None) -> TrainingData:
    """Multiply a teacher's scores so that they have the scale of the student's scores.

    Some losses compare the size of the teacher's scores with the size of the student's scores. The student must be able
    to reach the teacher's margins. The margins of a teacher with cosines are below 1. The margins of a sparse student's
    dot products are about 8. A student that is trained on much smaller margins forgets what it knew. A student with
    cosines cannot reach the margins of logits. The factor brings the root mean square of the margins to a usual value
    for the student. A factor between 1/4 and 4 is not applied.

    Args:
        data: Training data of any kind. Only scores of tuples and lists are multiplied.
        choice: Loss that `choose_loss` chose for this data.
        model: Student. It is needed for a dense model, which compares by cosine or by dot product, and for a
            late-interaction model, whose score is the sum or the mean of cosines.

    Returns:
        The data with the new scores and a note, or `data` if nothing changes.

    Raises:
        InvalidArgumentError: In every row, the teacher gives all texts the same score.
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
            f"The teacher of {data.name!r} gives all texts of a row the same score, so nothing can be learned. Take "
            "another teacher or other negatives."
        )
    usual = math.sqrt(sum(margin * margin for margin in margins) / len(margins))
    wanted = _MARGIN * _temperature(choice.model_kind, model)
    factor = float(f"{wanted / usual:.2g}")
    if 1 / _CLOSE <= factor <= _CLOSE:
        return data
    scaled = pa.array([[factor * score for score in of_row] for of_row in data.rows[label]], pa.list_(pa.float64()))
    rows = data.rows.remove_columns([label]).add_column(label, scaled)
    note = (
        f"the teacher's scores were multiplied by {factor:g}, because the teacher's margins are about {usual:.2g} and "
        f"the margins of this kind of student are about {wanted:.2g}"
    )
    return replace(data, rows=rows, notes=(*data.notes, note))


def explain_losses(model_kind: ModelKind, kind: Kind | None = None) -> str:
    """Make a table, ready to print, of the losses that fit each kind of data.

    Args:
        model_kind: Kind of the model: "dense", "sparse", "late-interaction" or "reranker".
        kind: Kind of data to show. None shows all kinds.

    Returns:
        The table as a text. The first loss of a line is the default.

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
    loss: torch.nn.Module | None = None,
    guide: Any = None,
    matryoshka_dims: Sequence[int] | None = None,
    mini_batch_size: int | None = None,
    architecture: Architecture | None = None,
    document_regularizer_weight: float = 1e-4,
    query_regularizer_weight: float = 1e-4,
) -> torch.nn.Module:
    """Make the chosen loss of sentence-transformers.

    Args:
        choice: Loss that `choose_loss` chose for this data.
        model: Model to train, of the class that `FAMILIES` has for its kind.
        data: Training data.
        loss: Loss of the user, which takes the place of the chosen one. It is wrapped like the chosen one for sparse
            models and for `matryoshka_dims`. None makes the chosen loss.
        guide: SentenceTransformer that says which texts of a batch are no negatives, for "gist" and "cached-gist" only.
        matryoshka_dims: Numbers of dimensions to which embeddings may later be cut, for dense models only. The full
            number is added. None trains the full number only.
        mini_batch_size: Number of texts or pairs that the cached losses and the losses on lists encode at a time. None
            takes 32.
        architecture: Architecture of a sparse model. "splade" and "inference-free" put SpladeLoss (Formal et al.,
            arXiv:2205.04733) around the loss, "csr" puts CSRLoss (Wen et al., arXiv:2503.01776) around it. None takes
            "splade".
        document_regularizer_weight: Weight of the regulariser of documents, as in `hybridsearch.train_sparse`.
        query_regularizer_weight: Weight of the regulariser of queries, as in `hybridsearch.train_sparse`.

    Returns:
        The loss, ready for the trainer.

    Raises:
        InvalidArgumentError: An option does not fit the loss or the model.
    """
    if matryoshka_dims is not None and choice.model_kind != "dense":
        raise InvalidArgumentError(
            f"matryoshka_dims is an option of dense models. Leave it out for a {choice.model_kind} model."
        )
    size = 32 if mini_batch_size is None else mini_batch_size
    size = whole_number("mini_batch_size", size, sentence="{name} is {value}. Give at least 1.")
    if data.kind is Kind.EMBEDDED and loss is None:
        _check_dimensions(model, data)
    if choice.model_kind == "reranker":
        return _reranker_loss(choice, model, data, size) if loss is None else loss
    if choice.model_kind == "sparse":
        weights = (document_regularizer_weight, query_regularizer_weight)
        return _sparse_loss(choice, model, loss, size, architecture or "splade", weights)
    if choice.model_kind == "late-interaction":
        return _late_interaction_loss(choice, model, size) if loss is None else loss
    if guide is not None and choice.name not in _GUIDED:
        raise InvalidArgumentError(
            f"guide is only for the losses {' and '.join(_GUIDED)}, but {data.name!r} has {choice.name!r}. Set loss, "
            "or leave guide out."
        )
    if loss is None:
        loss = _dense_loss(choice, model, data, size, guide)
    return loss if matryoshka_dims is None else _matryoshka(choice, model, loss, matryoshka_dims)


def _dense_loss(choice: Choice, model: Any, data: TrainingData, mini_batch_size: int, guide: Any) -> torch.nn.Module:
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer import losses

    from hybridsearch.training.models.denoising import denoising_loss

    if choice.name in _GUIDED and guide is None:
        raise InvalidArgumentError(f"The loss {choice.name!r} needs a guide. Give the folder or name of a dense model.")
    similarity = util.pairwise_cos_sim if _compares_by_cosine(model) else util.pairwise_dot_score
    distance = losses.BatchHardTripletLossDistanceFunction.cosine_distance
    make: Mapping[str, Callable[[], torch.nn.Module]] = {
        "mnr": lambda: losses.MultipleNegativesRankingLoss(model),
        "cached-mnr": lambda: losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size),
        "gist": lambda: losses.GISTEmbedLoss(model, guide),
        "cached-gist": lambda: losses.CachedGISTEmbedLoss(model, guide, mini_batch_size=mini_batch_size),
        "tsdae": lambda: denoising_loss(model, _DELETED),
        "batch-hard": lambda: losses.BatchHardTripletLoss(model, distance, _COSINE_MARGIN),
        "batch-semi-hard": lambda: losses.BatchSemiHardTripletLoss(model, distance, _COSINE_MARGIN),
        "batch-all": lambda: losses.BatchAllTripletLoss(model, distance, _COSINE_MARGIN),
        "batch-hard-soft-margin": lambda: losses.BatchHardSoftMarginTripletLoss(model, distance),
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
    loss: torch.nn.Module | None,
    mini_batch_size: int,
    architecture: Architecture,
    weights: tuple[float, float],
) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses as dense
    from sentence_transformers.sparse_encoder import losses

    if isinstance(loss, losses.SpladeLoss | losses.CSRLoss):  # already has its regularisers
        return loss
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
    loss = make[name]() if loss is None else loss
    if isinstance(loss, losses.SparseMSELoss):  # the teacher's embeddings are sparse already
        return loss
    cached = name != choice.name
    if architecture == "csr":
        if cached:
            raise InvalidArgumentError(
                f"A CSR model cannot be trained by {choice.name!r}, because sentence-transformers has no cached "
                f"CSRLoss. Take {name!r} with a smaller batch_size."
            )
        return losses.CSRLoss(model, loss)
    of_documents, of_queries = (number("The weight of a regulariser", one, least=0) for one in weights)
    if architecture == "inference-free":
        of_queries = 0.0  # queries have as many dimensions as tokens; None would log a warning
    if cached:
        return losses.CachedSpladeLoss(
            model,
            loss,
            document_regularizer_weight=of_documents,
            query_regularizer_weight=of_queries,
            mini_batch_size=mini_batch_size,
        )
    return losses.SpladeLoss(model, loss, document_regularizer_weight=of_documents, query_regularizer_weight=of_queries)


def _late_interaction_loss(choice: Choice, model: Any, mini_batch_size: int) -> torch.nn.Module:
    from sentence_transformers.multi_vector_encoder import losses, scoring

    temperature = _temperature("late-interaction", model)
    in_batch, pairwise, in_row = scoring.colbert_scores, scoring.colbert_scores_pairwise, scoring.colbert_kd_scores
    if model.similarity_fn_name == "meanmaxsim":
        in_batch, pairwise = scoring.mean_colbert_scores, scoring.mean_colbert_scores_pairwise
        in_row = scoring.mean_colbert_kd_scores
    ranking = {"scale": 1 / temperature, "similarity_fct": in_batch}
    make: Mapping[str, Callable[[], torch.nn.Module]] = {
        "mnr": lambda: losses.MultiVectorMultipleNegativesRankingLoss(model, **ranking),
        "cached-mnr": lambda: losses.CachedMultiVectorMultipleNegativesRankingLoss(
            model, mini_batch_size=mini_batch_size, **ranking
        ),
        "margin-mse": lambda: losses.MultiVectorMarginMSELoss(model, similarity_fct=pairwise),
        "kl": lambda: losses.MultiVectorDistillKLDivLoss(model, similarity_fct=in_row, temperature=temperature),
    }
    return make[choice.name]()


def _reranker_loss(choice: Choice, model: Any, data: TrainingData, mini_batch_size: int) -> torch.nn.Module:
    from sentence_transformers.cross_encoder import losses

    outputs = model.num_labels
    wanted = count_classes(data) if choice.name == "cross-entropy" else 1
    if outputs != wanted:
        raise InvalidArgumentError(
            f"The loss {choice.name!r} on {data.name!r} needs a model with num_labels={wanted}, but the model has "
            f"{outputs}. Load it with num_labels={wanted}."
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


def _check_dimensions(model: Any, data: TrainingData) -> None:
    """Raises InvalidArgumentError if the teacher's embeddings and the model's have other numbers of dimensions."""
    if (size := len(data.rows[0]["label"])) != (own := dimensions_of(model)):
        raise InvalidArgumentError(
            f"The embeddings of {data.name!r} have {size} dimensions, but the embeddings of the model have "
            f"{own}. Take a teacher with as many, or reduce its embeddings by PCA."
        )


def _matryoshka(choice: Choice, model: Any, loss: torch.nn.Module, dims: Sequence[int]) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses

    full = model.get_embedding_dimension()
    if choice.name in _WITHOUT_MATRYOSHKA:
        raise InvalidArgumentError(
            f"The loss {choice.name!r} does not work with matryoshka_dims. Take another loss, or leave it out."
        )
    listed = isinstance(dims, Sequence) and all(isinstance(one, Integral) and one is not True for one in dims)
    if not listed or not dims or min(dims) < 1 or max(dims) > full:
        raise InvalidArgumentError(
            f"matryoshka_dims is {shown(dims)}. Give numbers from 1 to {full}, the dimensions of the model, such as "
            f"{[full, full // 2, full // 4]}."
        )
    return losses.MatryoshkaLoss(model, loss, sorted({full, *dims}, reverse=True))


def count_classes(data: TrainingData) -> int:
    """Count the classes of the labels of some data.

    Args:
        data: Training data with classes as labels.

    Returns:
        The number of class names if the classes have names, else the largest label plus 1, and at least 2.
    """
    feature = data.rows.features["label"]
    return int(getattr(feature, "num_classes", 0)) or max(2, max(data.rows["label"]) + 1)


def _misfit(reason: str, model_kind: ModelKind) -> InvalidArgumentError:
    error = InvalidArgumentError(f"{reason}.")
    error.add_note(f"The losses for a {model_kind} model:\n{explain_losses(model_kind)}")
    return error


def _table(model_kind: ModelKind) -> dict[Kind, dict[str, str]]:
    if model_kind not in _LOSSES:
        raise InvalidArgumentError(f"The kind of model is {model_kind!r}. Give one of {', '.join(_LOSSES)}.")
    return _LOSSES[model_kind]


def _obstacle(name: str, data: TrainingData) -> str:
    """Why a loss that fits the kind of data does not fit this data; "" if it does fit."""
    negatives = sum(column.startswith("negative_") for column in data.inputs)
    if name in ("triplet", "gist") and data.kind is Kind.TUPLES and negatives > 1:
        return f"has {negatives} negatives a row, but the loss takes one"
    if name in _OF_CLASSES:
        sizes = Counter(data.rows["label"])
        if sum(size > 1 for size in sizes.values()) < 2:
            return "does not have two classes with at least two texts each"
    if name.removeprefix("cached-") == "kl" and data.kind is Kind.SCORED_TUPLES:
        scores = len(data.rows[0]["label"])
        if scores == negatives:
            return "has margins, but the loss takes the score of each text"
    if data.kind is Kind.SCORED and name in _BOUNDS:
        low, high = _BOUNDS[name]
        least, most = min(data.rows["label"]), max(data.rows["label"])
        if least < low or most > high:
            return f"has scores from {least:.3g} to {most:.3g}, but the loss takes scores from {low} to {high}"
    if data.kind is Kind.LISTS and name == "lambda" and (least := min(map(min, data.rows["labels"]))) < 0:
        return f"has scores from {least:.3g}, but the loss takes grades of 0 and more"
    return ""


def _temperature(model_kind: ModelKind, model: Any) -> float:
    """The number that divides a model's scores for a softmax over the texts of a row."""
    if model_kind == "late-interaction":
        by_cosine = model.similarity_fn_name == "meanmaxsim"
    else:
        by_cosine = model_kind == "dense" and _compares_by_cosine(model)
    return _COSINE_TEMPERATURE if by_cosine else _TEMPERATURES[model_kind]


def _compares_by_cosine(model: Any) -> bool:
    """Whether a dense model compares by cosine, or has embeddings of length 1, whose dot product is a cosine."""
    from sentence_transformers.base.modules import Normalize

    return model.similarity_fn_name == "cosine" or any(isinstance(module, Normalize) for module in model)


def _positive_weight(data: TrainingData) -> torch.Tensor | None:
    """The number of pairs with label 0 for each pair with label 1; None if the labels are scores."""
    import torch

    if data.kind is not Kind.LABELLED:
        return None
    positive = sum(data.rows["label"])
    return torch.tensor((len(data) - positive) / positive) if 0 < positive < len(data) else None
