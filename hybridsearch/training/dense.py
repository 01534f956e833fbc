"""Train a dense encoder and measure what the training changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from hybridsearch.arguments import one_of
from hybridsearch.documents import Document
from hybridsearch.encoders.dense import Dense
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.training.distill import Teacher, name_of
from hybridsearch.training.loss_objects import LossObject
from hybridsearch.training.measure.evaluators import Dev, Spec
from hybridsearch.training.models.loading import hub_name, quiet, set_prompts
from hybridsearch.training.models.lora import LoraSettings, add_adapters, merge_adapters, thaw_adapters
from hybridsearch.training.runs.run import TrainingResult
from hybridsearch.training.runs.steps import Steps, prompts_of_columns
from hybridsearch.training.settings import TrainingSettings
from hybridsearch.training.sources import Source

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import TrainerCallback

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How sentence-transformers turns the vectors of the tokens into one vector."""


def train_dense(
    model: str | Path | SentenceTransformer,
    data: Source | Sequence[Source] | Mapping[str, Source],
    output: str | Path,
    *,
    loss: str | LossObject | None = None,
    guide: str | Path | SentenceTransformer | None = None,
    hard_negatives: int | None = None,
    teacher: Teacher | str | Path | None = None,
    corpus: Iterable[Document] | str | Path | None = None,
    dev: Dev | None = None,
    test: Dataset | str | Path | None = None,
    evaluators: Spec | Sequence[Spec] | None = None,
    settings: TrainingSettings | None = None,
    callbacks: Iterable[TrainerCallback] = (),
    matryoshka_dims: Sequence[int] | None = None,
    lora: LoraSettings | None = None,
    pooling: PoolingMode | None = None,
    prompts: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    show_progress_bar: bool | None = None,
) -> TrainingResult:
    """Train a dense model (a SentenceTransformer), save it, and measure it before and after training.

    If `dev` or `test` is not given, a part of `data` is held out for it, if `data` is large enough
    (`hybridsearch.training.sources.gather` has the rules). The test queries are searched with the model before and
    after training, alone and together with BM25. The first line of the result's summary is the verdict. The whole
    report is in report.md and in the model card. It has intervals, significance, settings, seed and command.

    Args:
        model: Model to train: a folder, a name on the model hub, or a loaded SentenceTransformer. A loaded model is
            changed in place. A plain language model gets a pooling: the mean of the tokens for an encoder, the last
            token for a decoder. If a folder holds adapters, only the adapters are trained.
        data: Training data: rows of texts, or queries with judgements. It is anything that `read_training_data` reads,
            a list of these, or a mapping from names to these.
        output: Folder for the trained model, in the format of sentence-transformers, with settings, history and
            checkpoints.
        loss: Name of the loss for all data. It can also be a loss of sentence-transformers that holds the loaded
            model, or a function from the model to a loss, such as the class of a loss. Rows and scores are then given
            to the loss as they are. None chooses a loss for each data set (`hybridsearch.training.losses`). Before
            training, each choice and its reason are printed on stderr, unless `show_progress_bar` is False.
        guide: Dense model (loaded, or its folder or name) for the losses "gist" and "cached-gist" (Solatorio,
            arXiv:2402.16829), and only for them. A text of the batch that it finds nearer to the query than the
            positive is not a negative.
        hard_negatives: Number of hard negatives to mine for each pair. They are drawn at random from ranks 6 to 40 of
            BM25 together with the model. None mines nothing.
        teacher: Model whose scores the student learns: a cross-encoder or anything else that `add_teacher_scores`
            takes. It scores the given tuples or the mined negatives. None trains on labels only.
        corpus: Documents to mine from, or their file or folder. None takes the documents of the data set, or else the
            positives.
        dev: Data or evaluators that choose the best checkpoint: a data set with documents (`Dataset`), training data,
            or evaluators such as "similarity=dev.csv" (`build_evaluator`).
        test: Held-out queries with judgements, which are measured before and after training.
        evaluators: Further evaluators, measured before and after training, as `build_evaluator` takes them. They do not
            choose the checkpoint.
        settings: Settings of the run. None takes the defaults.
        callbacks: Callbacks of transformers (`TrainerCallback`), objects or classes. They are called after the
            callbacks of this library. A run that is resumed needs them again.
        matryoshka_dims: Numbers of dimensions to which vectors may later be cut, such as (128, 64) (Kusupati et al.,
            arXiv:2205.13147).
        lora: Settings of LoRA, which trains adapters instead of all weights. None trains all weights.
        pooling: Pooling, which turns the vectors of the tokens into one vector. None keeps the pooling of the model.
        prompts: Texts that are put before queries and documents and saved with the model: {"query": ..., "document":
            ...}, or one text for both, such as an instruction. None keeps the prompts of the model.
        trust_remote_code: Whether code in the folder of a named model may run. Older MiniCPM models need it. Whoever
            loads the trained model has to decide this again.
        show_progress_bar: Whether progress bars are shown. None shows them only in a terminal.

    Returns:
        The folder of the trained model, and the report of the run.

    Raises:
        InvalidArgumentError: An argument does not fit the other arguments or the data, or the folder is taken (set
            `settings.resume` to continue an interrupted run).
        DocumentError: A row of the data is malformed.
        DatasetNotFoundError: There is no such data set.
        ModelNotFoundError: There is no such model.
        TrainingError: The loss is NaN or infinite, the memory of the GPU is too small, or the model cannot be uploaded.
        MissingExtraError: The extra `training` is not installed.
    """
    steps = Steps("dense", data, output, settings, corpus, dev, test, evaluators, trust_remote_code, show_progress_bar)
    loading: dict[str, Any] = {"pooling": pooling, "prompts": prompts, "trust_remote_code": trust_remote_code}
    trained = load_model(model, steps.settings, **loading)
    before = copy.deepcopy(trained) if steps.is_compared and not isinstance(model, str | Path) else None
    steps.mine(hard_negatives, Dense(trained))
    steps.teach(teacher)
    if lora is not None:
        add_adapters(trained, lora, hub_name(model), seed=steps.settings.seed)
    steps.take_loss(loss, model, trained)
    steps.choose_losses(trained)
    guiding, facts = _load_guide(guide, trust_remote_code)
    steps.fit(
        trained,
        steps.build_losses(trained, matryoshka_dims=matryoshka_dims, guide=guiding),
        steps.dev_evaluator(),
        {
            "guide": facts,
            "matryoshka_dims": None if matryoshka_dims is None else list(map(int, matryoshka_dims)),
            "lora": None if lora is None else lora.to_dict(),
            "pooling": pooling,
            "prompts": prompts if prompts is None or isinstance(prompts, str) else dict(prompts),
        },
        callbacks=callbacks,
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
    """Load a SentenceTransformer to train it, in float32, with the given pooling and prompts.

    Args:
        model: Model, as in `train_dense`.
        settings: Settings of the run. The seed is used for new weights.
        pooling: Pooling, as in `train_dense`.
        prompts: Prompts, as in `train_dense`.
        trust_remote_code: Whether code in the folder of a named model may run.

    Returns:
        The SentenceTransformer. A loaded model is changed in place and returned.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidArgumentError: The model is a cross-encoder, a prompt has an unknown name, or the model has no pooling
            that could be replaced.
    """
    import transformers

    transformers.set_seed(settings.seed)  # for weights that are new
    named = isinstance(model, str | Path)
    options: dict[str, Any] = {"model_kwargs": {"dtype": "float32"}} if named else {}
    lazy = LazyModel(model, "SentenceTransformer", trust_remote_code=trust_remote_code, **options)
    with quiet():
        loaded = lazy.get()
    thaw_adapters(loaded)
    if pooling is not None:
        _set_pooling(loaded, pooling)
    if prompts is not None:
        set_prompts(loaded, prompts)
    if name := hub_name(model):
        loaded.model_card_data.base_model = name
    return loaded


def _load_guide(
    guide: str | Path | SentenceTransformer | None, trust_remote_code: bool
) -> tuple[Any, dict[str, str | None] | None]:
    """The guide, frozen, and its name and digest. None for both without one."""
    if guide is None:
        return None, None
    lazy = LazyModel(guide, "SentenceTransformer", trust_remote_code=trust_remote_code)
    with quiet():
        loaded = lazy.get()
    return copy.deepcopy(loaded).requires_grad_(False).eval(), {"name": name_of(guide), "digest": lazy.digest()}


def _set_pooling(model: Any, mode: PoolingMode) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    one_of("pooling", mode, get_args(PoolingMode))
    places = [place for place, module in enumerate(model) if isinstance(module, Pooling)]
    if not places:
        raise InvalidArgumentError(f"The model has no pooling that {mode!r} could replace. Leave pooling out.")
    old = model[places[0]]
    model[places[0]] = Pooling(old.embedding_dimension, mode, old.include_prompt)
