"""The steps of a training run that the training functions of all kinds of models share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsearch import arguments
from hybridsearch.documents import Document
from hybridsearch.encoders import Encoder
from hybridsearch.encoders.batching import prompt_of
from hybridsearch.encoders.models import LazyModel
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.evaluation.datasets import Dataset
from hybridsearch.evaluation.measures import parse_measures
from hybridsearch.evaluation.pipeline import Pipeline
from hybridsearch.messages import number_of
from hybridsearch.search import HybridSearch
from hybridsearch.training.data import TrainingData
from hybridsearch.training.distill import Teacher, name_of
from hybridsearch.training.libraries import check_libraries, import_library
from hybridsearch.training.loss_objects import LossObject, bind, facts_of, short_name
from hybridsearch.training.losses import Choice, build_loss, choice_of, choose_loss, to_scale_of
from hybridsearch.training.measure.comparing import MEASURES, compare_figures, compare_models
from hybridsearch.training.measure.evaluators import Dev, Spec, build_evaluator, dev_evaluator
from hybridsearch.training.measure.measuring import asked_by, check_evaluator, digest_of
from hybridsearch.training.measure.report import Report
from hybridsearch.training.runs.record import History, check_output, is_main_process
from hybridsearch.training.runs.run import TrainingResult, check_trackers, conclude, fit
from hybridsearch.training.settings import FAMILIES, ModelKind, TrainingSettings
from hybridsearch.training.sources import Source, asked_in, gather, mine, teach

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.evaluation import BaseEvaluator


class Steps:
    """One training run, from the data to the report.

    The methods are called in the order of this class.

    The arguments are the arguments of `hybridsearch.train_dense`. The data are read when the object is made: `sources`
    has the training data, dev and test.
    """

    def __init__(
        self,
        kind: ModelKind,
        data: Source | Sequence[Source] | Mapping[str, Source],
        output: str | Path,
        settings: TrainingSettings | None,
        corpus: Iterable[Document] | str | Path | None,
        dev: Dev | None,
        test: Dataset | str | Path | None,
        evaluators: Spec | Sequence[Spec] | None,
        trust_remote_code: bool,
        show_progress_bar: bool | None,
    ) -> None:
        check_libraries()
        self.settings = TrainingSettings() if settings is None else settings
        arguments.of_type(
            "settings", self.settings, TrainingSettings, "an hs.TrainingSettings such as hs.TrainingSettings(epochs=1)"
        )
        self.output = arguments.path("output", output).resolve()
        check_output(self.output, self.settings)
        check_trackers(self.settings)
        given = dev is not None and not isinstance(dev, Dataset | TrainingData)
        self._choosing, self._measuring = (
            None if specs is None else build_evaluator(specs, kind, self.settings)
            for specs in (dev if given else None, evaluators)
        )
        self._dev_content: str | None = None
        by_dev, by_evaluator = asked_by(self._choosing), asked_by(self._measuring)
        self.sources = gather(
            data, dev=dev, test=test, corpus=corpus, seed=self.settings.seed, measured=by_dev | by_evaluator
        )
        self._shared = len(by_evaluator & (by_dev | asked_in(self.sources.dev)))
        self._options: dict[str, Any] = {}  # ready for JSON; for the report, and must be the same in a resumed run
        self._kind = kind
        self._trust = arguments.true_or_false("trust_remote_code", trust_remote_code)
        self._show = show_progress_bar
        self._loss: str | None = None
        self._objects: list[torch.nn.Module] = []  # losses that are not given by name, one for each data set
        self._choices: list[Choice] = []
        self._lines: list[str] = []
        self._history = History()

    @property
    def is_compared(self) -> bool:
        """Whether the model is measured before and after training, by test or by evaluators."""
        return self.sources.test is not None or self._measuring is not None

    def mine(
        self, per_query: int | None, model: Encoder | None, retriever: HybridSearch | Pipeline | None = None
    ) -> None:
        """Replace plain pairs by tuples with mined negatives.

        Nothing changes if `per_query` is None.
        """
        self._options["hard_negatives"] = per_query
        if per_query is not None:
            self.sources = mine(
                self.sources,
                per_query,
                model,
                self.output / "negatives",
                retriever=retriever,
                seed=self.settings.seed,
                show_progress_bar=self._show,
            )

    def teach(self, teacher: Teacher | str | Path | None) -> None:
        """Replace the labels by a teacher's scores.

        Nothing changes if there is no teacher.
        """
        self._options["teacher"] = name_of(teacher)
        if teacher is not None:
            self.sources = teach(self.sources, teacher, self._show)

    def shape(self, shape: Callable[[TrainingData], TrainingData]) -> None:
        """Replace each data set by the result of a function."""
        self.sources = replace(self.sources, training=tuple(map(shape, self.sources.training)))

    def take_loss(self, asked: str | LossObject | None, given: Any, trained: Any) -> str | None:
        """Take the loss that the user asks for, and return its name, or None without one.

        An object or a function becomes the loss of `trained`. `given` is the model that the user gave.
        """
        if asked is None or isinstance(asked, str):
            self._loss = asked
            return asked
        data = self.sources.training
        if isinstance(asked, import_library("torch", "Training").nn.Module) and len(data) > 1:
            raise InvalidArgumentError(
                f"The loss {type(asked).__name__} is one object, but there are {len(data)} data sets. Give a function "
                "from the model to a loss, which makes a loss for each."
            )
        self._objects = [bind(asked, given, trained) for _ in data]
        self._options["loss"] = facts_of(self._objects[0])
        return short_name(self._objects[0])

    def choose_losses(self, model: Any = None) -> None:
        """Choose the loss of each data set, and bring a teacher's scores to the scale of the student.

        The data, the loss and the reason are printed on stderr. `model` is needed only for a dense or a
        late-interaction model. The rows of losses that were given as objects stay as they are.
        """
        training = self.sources.training
        if self._objects:
            pairs = zip(training, self._objects, strict=True)
            self._choices = [choice_of(self._kind, one, type(loss).__name__) for one, loss in pairs]
        else:
            self._choices = [choose_loss(self._kind, one, self._loss) for one in training]
        data = tuple(
            to_scale_of(one, choice, model) for one, choice in zip(self.sources.training, self._choices, strict=True)
        )
        self.sources = replace(self.sources, training=data)
        self._lines = [
            " ".join(
                [
                    f"{number_of(len(one), 'row')}; {choice.reason}",
                    *(f"{note[0].upper()}{note[1:]}." for note in one.notes),
                ]
            )
            for one, choice in zip(data, self._choices, strict=True)
        ]
        self._say(*self._lines)

    def _say(self, *lines: str) -> None:
        """Print on stderr, unless progress is hidden."""
        if self._show is not False and is_main_process():
            print(*lines, sep="\n", file=sys.stderr, flush=True)

    def build_losses(self, model: Any, **options: Any) -> dict[str, torch.nn.Module]:
        """Make the chosen losses, by the names of the data.

        `options` are options of `build_loss`.
        """
        options["mini_batch_size"] = self.settings.mini_batch_size
        data = self.sources.training
        objects = self._objects or [None] * len(data)
        chosen = zip(data, self._choices, objects, strict=True)
        return {one.name: build_loss(choice, model, one, loss=loss, **options) for one, choice, loss in chosen}

    def dev_evaluator(self, retriever: HybridSearch | Pipeline | None = None) -> BaseEvaluator | None:
        """The evaluator that chooses the best checkpoint.

        None keeps the last weights.
        """
        evaluator = self._choosing or dev_evaluator(self.sources.dev, self._kind, self.settings, retriever)
        if evaluator is not None and (retriever is None or self._choosing is not None):
            self._dev_content = digest_of(evaluator)  # not of what a search gives, which may differ from call to call
        return evaluator

    def fit(
        self,
        model: Any,
        losses: Mapping[str, torch.nn.Module],
        evaluator: BaseEvaluator | None,
        options: Mapping[str, Any],
        **arguments: Any,
    ) -> None:
        """Train.

        `options` are the options of this kind of model, and `arguments` are further arguments of `fit`.
        """
        self._options |= options
        for one in (evaluator, self._measuring):
            check_evaluator(one, model)
        self._history = fit(
            model,
            self._kind,
            self.sources.training,
            losses,
            self.settings,
            self.output,
            evaluator=evaluator,
            identity={**self._options, "dev": self.sources.chooser, "dev content": self._dev_content},
            show_progress_bar=self._show,
            **arguments,
        )

    def open(self, model: Any) -> Any:
        """A model for a comparison: by its name, or loaded if code in its folder may run."""
        if not self._trust or not isinstance(model, str | Path):
            return model
        return LazyModel(model, FAMILIES[self._kind], trust_remote_code=True).get()

    def conclude(
        self, base: Any, before: Any, after: Any, said: Mapping[str, Any] | None = None, **comparing: Any
    ) -> TrainingResult:
        """Compare the model before and after training, and write the report.

        Only the first process compares.

        Args:
            base: Model that was given by the user.
            before: Model before training, or None.
            after: Model after training.
            said: Further fields of the report.
            comparing: Further arguments of `compare_models`. The first measure is the measure of the settings, if it is
                a measure of retrieval.
        """
        test, comparison, figures = self.sources.test, None, {}
        if is_main_process():
            when = "after" if before is None else "before and after"
            if test is not None:
                measures = list(MEASURES)
                with suppress(InvalidArgumentError):  # such as Spearman, which is for rows with scores
                    measures = list(dict.fromkeys([str(parse_measures(self.settings.measure)[0]), *MEASURES]))
                queries = number_of(len(test.queries), "query", "queries")
                self._say(f"Comparing the model {when} training on {test.name}: {queries}.")
                comparing |= {"measures": measures, "show_progress_bar": self._show}
                comparison = compare_models(before, after, test, self._kind, **comparing)
            if self._measuring is not None:
                self._say(f"Measuring the model {when} training with the evaluators.")
            figures = compare_figures(before, after, self._kind, self._measuring)
        options = {name: value for name, value in self._options.items() if value is not None}
        report = Report(
            kind=self._kind,
            base=_base_name(base),
            data=self._lines,
            settings={**self.settings.to_dict(self._kind), **options},
            history=self._history,
            comparison=comparison,
            figures=figures,
            shared=self._shared,
            **(said or {}),
        )
        return conclude(self.output, report, self.settings)


def prompts_of_columns(model: Any, data: Iterable[TrainingData]) -> dict[str, str]:
    """The prompt of each column, as encoders use it: that of queries for anchors, that of documents for others."""
    query, document = prompt_of(model, "query"), prompt_of(model, "document")
    columns = {column: query if column == "anchor" else document for one in data for column in one.inputs}
    return {column: prompt for column, prompt in columns.items() if prompt}


def _base_name(model: Any) -> str:
    """The name of a model for a report."""
    if isinstance(model, str | Path):
        return str(model)
    return str(model.model_card_data.base_model or type(model).__name__)
