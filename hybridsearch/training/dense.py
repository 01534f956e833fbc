"""Train a dense encoder: from a corpus with questions, pairs or triplets to a better model, with the proof."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from hybridsearch import arguments
from hybridsearch.arguments import one_of
from hybridsearch.documents import Document
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.distill import Teacher
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.loading import quiet
from hybridsearch.training.models.lora import LoraSettings, add_adapters, merge_adapters, thaw_adapters
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps, prompts_of_columns
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How sentence-transformers makes one vector of those of the tokens."""


def train_dense(
    model: str | Path | SentenceTransformer,
    data: Source | Sequence[Source] | Mapping[str, Source],
    output: str | Path,
    *,
    loss: str | None = None,
    hard_negatives: int | None = None,
    teacher: Teacher | str | Path | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    evaluators: Spec | Sequence[Spec] | None = None,
    settings: TrainingSettings | None = None,
    matryoshka_dims: Sequence[int] | None = None,
    lora: LoraSettings | None = None,
    pooling: PoolingMode | None = None,
    prompts: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a SentenceTransformer, and measure what it gave.

    Where `dev` or `test` is not given, it is held out of `data`, if these are many enough
    (`hybridsearch.training.sources.gather` says how). The test set is searched with the model before and after, alone
    and together with BM25. The verdict is the first line of the result's summary. The whole report is in report.md and
    in the model card, with intervals, significance, settings, seed and command.

    Args:
        model: a folder, a name on the model hub, or a loaded SentenceTransformer, which is trained in place. A plain
            encoder or decoder language model gets pooling: the mean, or the last token of a decoder. Of a folder with
            adapters, they alone are trained further.
        data: rows of texts, or queries with judgements: anything that `read_training_data` reads, or several of
            those in a list or, by name, in a mapping.
        output: folder for the model, which sentence-transformers loads; with settings, history and checkpoints.
        loss: by name, for all data; None for the one that suits each (`hybridsearch.training.losses`). Each is said on
            stderr before training, with the reason, unless `show_progress_bar` is False.
        hard_negatives: None, or how many to mine for each pair, at random from ranks 6 to 40 of BM25 with the model.
        teacher: a cross-encoder or anything else that `add_teacher_scores` takes, whose scores of given tuples or mined
            negatives are learned; None for labels only.
        corpus: documents to mine from, or their file or folder; None for those of the data set, or the positives.
        dev: what chooses the best checkpoint: a test collection, training data, or evaluators such as
            "similarity=dev.csv" (`build_evaluator`).
        test: held-out queries with judgements, for before and after.
        evaluators: what else is measured before and after, as `build_evaluator` takes it; chooses nothing.
        settings: how to train; None for the defaults.
        matryoshka_dims: dimensions to which vectors may later be cut, such as (128, 64) (Kusupati et al.,
            arXiv:2205.13147).
        lora: train adapters instead of all weights.
        pooling: how one vector is made of those of the tokens; None for the model's own.
        prompts: put before texts, and saved with the model: {"query": ..., "document": ...}, or one text for both,
            such as an instruction; None for the model's own.
        trust_remote_code: whether code in the folder of a named model may run, as older MiniCPM models need. Who loads
            the trained model decides again.
        show_progress_bar: None shows bars only in a terminal.

    Raises:
        InvalidArgumentError: an argument does not fit the others or the data, or the folder is taken (set
            `settings.resume` to go on with a run that was broken off).
        DocumentError: a row of the data is malformed.
        DatasetNotFoundError, ModelNotFoundError: there is no such data set or model.
        TrainingError: the loss is NaN, or the GPU's memory is too small.
        MissingExtraError: the extra `training` is not installed.
    """
    steps = Steps("dense", data, output, settings, corpus, dev, test, evaluators, trust_remote_code, show_progress_bar)
    loading: dict[str, Any] = {"pooling": pooling, "prompts": prompts, "trust_remote_code": trust_remote_code}
    trained = load_model(model, steps.settings, **loading)
    before = copy.deepcopy(trained) if steps.is_compared and not isinstance(model, str | Path) else None
    steps.mine(hard_negatives, Dense(trained))
    steps.teach(teacher)
    if lora is not None:
        add_adapters(trained, lora, _hub_name(model), seed=steps.settings.seed)
    steps.choose_losses(loss, trained)
    steps.fit(
        trained,
        steps.build_losses(trained, matryoshka_dims=matryoshka_dims),
        steps.dev_evaluator(),
        {
            "matryoshka_dims": None if matryoshka_dims is None else list(matryoshka_dims),
            "lora": None if lora is None else lora.to_dict(),
            "pooling": pooling,
            "prompts": prompts if prompts is None or isinstance(prompts, str) else dict(prompts),
        },
        prompts=prompts_of_columns(trained, steps.sources.training),
        finish=merge_adapters if lora is not None and lora.merge else None,
    )
    if steps.is_compared and before is None:
        before = load_model(model, steps.settings, **loading)
    return steps.conclude(model, before, steps.open(steps.output))


def load_model(
    model: str | Path | SentenceTransformer,
    settings: TrainingSettings,
    *,
    pooling: PoolingMode | None = None,
    prompts: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The SentenceTransformer to train: its weights in float32, with the pooling and prompts that are asked for.

    Raises:
        ModelNotFoundError: there is no such model.
        InvalidArgumentError: it is a cross-encoder, a prompt has an unknown name, or there is no pooling to change.
    """
    import transformers

    transformers.set_seed(settings.seed)  # for weights that are new
    named = isinstance(model, str | Path)
    options: dict[str, Any] = {"model_kwargs": {"dtype": "float32"}} if named else {}
    lazy = LazyModel(model, "SentenceTransformer", trust_remote_code=trust_remote_code, **options)
    with quiet():
        loaded = lazy.get()
    thaw_adapters(loaded)
    _set_padding(loaded)
    if pooling is not None:
        _set_pooling(loaded, pooling)
    if prompts is not None:
        _set_prompts(loaded, prompts)
    if name := _hub_name(model):
        loaded.model_card_data.base_model = name
    return loaded


def _hub_name(model: Any) -> str | None:
    return model if isinstance(model, str) and not arguments.path("The model", model).exists() else None


def _set_padding(model: Any) -> None:
    """Decoders often have no token to pad with: the end of a text serves, which the attention mask hides."""
    tokenizer = model.tokenizer
    if getattr(tokenizer, "pad_token", "") is None:
        tokenizer.pad_token = tokenizer.eos_token


def _set_pooling(model: Any, mode: PoolingMode) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    one_of("pooling", mode, get_args(PoolingMode))
    places = [place for place, module in enumerate(model) if isinstance(module, Pooling)]
    if not places:
        raise InvalidArgumentError(f"The model has no pooling that {mode!r} could replace: leave pooling out.")
    old = model[places[0]]
    model[places[0]] = Pooling(old.embedding_dimension, mode, old.include_prompt)


def _set_prompts(model: Any, prompts: str | Mapping[str, str]) -> None:
    if isinstance(prompts, str):
        prompts = {"query": prompts, "document": prompts}
        model.default_prompt_name = "query"
    if strange := [name for name in prompts if name not in ("query", "document")]:
        raise InvalidArgumentError(f"prompts are for 'query' and 'document', not for {strange[0]!r}.")
    model.prompts = {**model.prompts, **prompts}
