"""Training by guided negatives, by classes of texts, and by texts alone, from rows to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridsearch.errors import InvalidArgumentError
from hybridsearch.training.data import Kind, TrainingData, read_training_data
from hybridsearch.training.dense import train_dense
from hybridsearch.training.settings import TrainingSettings

st: Any = pytest.importorskip("sentence_transformers", reason="pip install 'hybridsearch[training]'")
transformers: Any = pytest.importorskip("transformers")

SETTINGS = TrainingSettings(max_steps=4, batch_size=8, learning_rate=1e-2, evaluate_every=2)


class Interrupt(transformers.TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def weights_of(folder: Path) -> dict[str, Any]:
    weights: dict[str, Any] = st.SentenceTransformer(str(folder), device="cpu").state_dict()
    return weights


def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return any((weight != other[name]).any() for name, weight in one.items())


def test_a_guide_trains_a_model_and_stays_as_it_is(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    guide = st.SentenceTransformer(str(tiny_dense), device="cpu")

    result = train_dense(
        tiny_dense, tiny_pairs, tmp_path / "out", loss="gist", guide=guide, settings=SETTINGS, show_progress_bar=False
    )

    assert "gist for 'data' (pairs): as you asked." in result.summary
    assert not list((tmp_path / "out" / "checkpoints").glob("*/losses.safetensors"))  # the guide is not saved
    assert differ(guide.state_dict(), weights_of(tmp_path / "out"))
    assert not differ(guide.state_dict(), weights_of(tiny_dense))


def test_a_guide_and_its_losses_need_each_other(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    for options, message in (({"loss": "gist"}, "'gist' needs a guide"), ({"guide": tiny_dense}, "guide is only for")):
        with pytest.raises(InvalidArgumentError, match=message):
            train_dense(tiny_dense, tiny_pairs, tmp_path / "out", settings=SETTINGS, **options)  # type: ignore[arg-type]


def test_texts_with_classes_are_trained_in_batches_with_two_of_each_class(
    tiny_dense: Path, tiny_corpus: Any, tmp_path: Path
) -> None:
    rows = [{"text": one.text, "label": one.id.partition("-")[0]} for one in tiny_corpus]
    data = read_training_data([*rows, {"text": "A text of its own.", "label": "alone"}])
    assert data.kind is Kind.CLASSED_TEXTS
    assert data.notes == ("texts without another text of their class, which train nothing: 1",)
    model = st.SentenceTransformer(str(tiny_dense), device="cpu")
    sizes: list[int] = []

    def loss(model: Any) -> Any:
        from sentence_transformers.sentence_transformer import losses

        made = losses.BatchHardTripletLoss(model)
        made.register_forward_pre_hook(
            lambda _, given: sizes.extend(given[1].tolist().count(one) for one in set(given[1].tolist()))
        )
        return made

    train_dense(model, data, tmp_path / "out", loss=loss, settings=SETTINGS, show_progress_bar=False)

    assert sizes
    assert all(size % 2 == 0 for size in sizes)
    with pytest.raises(InvalidArgumentError, match=r"batch_size is 7\. For texts with class, give 4, 6"):
        train_dense(tiny_dense, data, tmp_path / "odd", settings=SETTINGS.with_values({"batch_size": 7}))


def test_classes_of_one_text_each_are_refused(tiny_dense: Path, tmp_path: Path) -> None:
    rows = [{"text": f"A text about {number}.", "class": number} for number in range(8)]
    with pytest.raises(InvalidArgumentError, match="because the data does not have two classes with"):
        train_dense(tiny_dense, rows, tmp_path / "out", settings=SETTINGS)


def test_texts_alone_train_a_model_and_an_interrupted_run_goes_on_to_the_same_weights(
    tiny_masked: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    texts = [{"text": pair["positive"]} for pair in tiny_pairs]

    def train(name: str, **options: Any) -> Any:
        return train_dense(tiny_masked, texts, tmp_path / name, show_progress_bar=False, **options)

    whole = train("whole", settings=SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train("paused", settings=SETTINGS, callbacks=[Interrupt])
    paused = train("paused", settings=SETTINGS.with_values({"resume": True}))

    assert "tsdae for 'data' (texts)" in whole.summary
    assert paused.history.resumed_at == (2,)
    assert not differ(weights_of(tmp_path / "whole"), weights_of(tmp_path / "paused"))
    assert differ(weights_of(tmp_path / "whole"), weights_of(tiny_masked))


def test_the_damage_of_a_text_keeps_its_ends_and_the_model_keeps_its_weights(tiny_masked: Path) -> None:
    from hybridsearch.training.models.denoising import denoising_loss

    model = st.SentenceTransformer(str(tiny_masked), device="cpu")
    with __import__("torch").no_grad():
        model[0].auto_model.embeddings.word_embeddings.weight.add_(1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    loss = denoising_loss(model, 0.6)
    assert not differ(before, model.state_dict())

    features = model.preprocess(["wing", "a wing in a stream of air that is not still and not fast"])
    damaged = loss.damaged(features)

    for whole, fewer, mask in zip(
        features["input_ids"], damaged["input_ids"], damaged["attention_mask"].bool(), strict=True
    ):
        kept = fewer[mask].tolist()
        assert kept[0] == whole[0]
        assert kept[-1] == model.tokenizer.sep_token_id
        assert len(kept) >= 3
        left = iter(whole.tolist())
        assert all(token in left for token in kept)  # in the same order
    assert damaged["input_ids"].shape[1] < features["input_ids"].shape[1]


def test_a_model_that_cannot_be_a_decoder_is_refused(
    tiny_dense: Path, tiny_pairs: list[dict[str, str]], tmp_path: Path
) -> None:
    model = st.SentenceTransformer(str(tiny_dense), device="cpu")
    model[0].auto_model.config._name_or_path = str(tmp_path / "gone")
    data = TrainingData.from_columns(Kind.TEXTS, {"text": [pair["positive"] for pair in tiny_pairs]})
    with pytest.raises(InvalidArgumentError, match="'tsdae' cannot make a decoder of this model"):
        train_dense(model, data, tmp_path / "out", settings=SETTINGS, show_progress_bar=False)
