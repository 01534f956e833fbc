"""The loss of TSDAE (Wang et al., arXiv:2104.06979), which trains on single texts.

Importing this module loads torch.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss

from hybridsearch.errors import InvalidArgumentError


class Denoising(torch.nn.Module):  # type: ignore[misc]
    """Delete tokens of each text at random, and let `loss` restore the text from the embedding of the rest.

    Other tokens are deleted each time. The tokens that mark the ends of a text stay, and so does at least one other
    token.

    Args:
        loss: DenoisingAutoEncoderLoss of the model.
        deleted: Share of the tokens that are deleted, from 0 to below 1.
    """

    def __init__(self, loss: DenoisingAutoEncoderLoss, deleted: float) -> None:
        super().__init__()
        self.loss = loss
        self._deleted = deleted

    def forward(self, sentence_features: Any, labels: Any) -> torch.Tensor:
        """The loss of a batch with one column of texts."""
        (whole,) = sentence_features
        loss: torch.Tensor = self.loss([self.damaged(whole), whole], labels)
        return loss

    def damaged(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features of the same texts with fewer tokens."""
        ids, mask = features["input_ids"], features["attention_mask"].bool()
        special = torch.isin(ids, torch.tensor(self.loss.tokenizer_encoder.all_special_ids, device=ids.device))
        chance = torch.rand(ids.shape, device=ids.device).masked_fill(special | ~mask, -1)
        kept = mask & (special | (chance >= self._deleted) | (chance == chance.max(1, keepdim=True).values))
        order = torch.argsort(~kept, dim=1, stable=True)[:, : int(kept.sum(1).max())]
        of_tokens = [name for name, one in features.items() if getattr(one, "shape", None) == ids.shape]
        fewer = {name: features[name].gather(1, order) for name in of_tokens}
        fewer["attention_mask"] = kept.gather(1, order).to(features["attention_mask"].dtype)
        return {**features, **fewer}


def denoising_loss(model: Any, deleted: float) -> Denoising:
    """Make the loss. The decoder shares the weights of the model, which keep their values.

    Args:
        model: SentenceTransformer to train.
        deleted: Share of the tokens that are deleted.

    Raises:
        InvalidArgumentError: No decoder can be made of the model.
    """
    transformer = model.transformers_model
    weights = {name: weight.detach().clone() for name, weight in transformer.named_parameters()}
    if any("lora_" in name for name in weights):
        raise InvalidArgumentError("The loss 'tsdae' trains all weights. Leave lora out, or take a model without it.")
    try:
        loss = DenoisingAutoEncoderLoss(model).float()
    except Exception as error:  # each architecture that is no decoder has its own error
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InvalidArgumentError(
            f"The loss 'tsdae' cannot make a decoder of this model ({reason}). Take a model that was loaded from a "
            "folder or by its name, and whose kind also generates text in transformers, such as BERT or RoBERTa."
        ) from error
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            weight.copy_(weights[name])
    return Denoising(loss, deleted)
