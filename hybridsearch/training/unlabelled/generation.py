"""Write queries with a language model of transformers, sequence-to-sequence or causal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridsearch.arguments import whole_number
from hybridsearch.errors import InvalidArgumentError, ModelNotFoundError
from hybridsearch.training.libraries import import_library

PROMPT = "Write one short search query that the following text answers. Give only the query.\n\nText: {text}\n\nQuery:"
"""The prompt for a causal language model."""

_TEXT_TOKENS = 512


class QueryModel:
    """A language model that writes queries for texts.

    A sequence-to-sequence model reads only the text. A causal language model reads `prompt` with the text in it. Texts
    are cut after 512 tokens.

    Args:
        model: Folder of the model, or its name on the Hugging Face hub.
        queries: Number of queries for each text. They are sampled.
        prompt: Prompt for a causal language model, with {text} in it. A chat model gets it as a message of the user.
        max_new_tokens: Largest length of a query in tokens.
        top_k: Number of likeliest tokens from which the next token is sampled.
        batch_size: Number of texts that are read together.
        seed: Seed of the sampling. The same texts in the same order give the same queries.
        device: Device of the model, such as "cuda:0". None takes a GPU if there is one, else the CPU.

    Raises:
        InvalidArgumentError: The prompt has no {text}, or a number is not allowed.
        ModelNotFoundError: There is no such model, or it cannot be loaded. This is raised at the first use.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        queries: int = 1,
        prompt: str = PROMPT,
        max_new_tokens: int = 48,
        top_k: int = 10,
        batch_size: int = 16,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        if "{text}" not in prompt:
            raise InvalidArgumentError("The prompt has no {text}. Put {text} where the document belongs.")
        self._name = str(model)
        self._queries, self._batch_size = whole_number("queries", queries), whole_number("batch_size", batch_size)
        self._prompt, self._seed = prompt, seed
        self._sampling = {
            "do_sample": True,
            "top_k": whole_number("top_k", top_k),
            "max_new_tokens": whole_number("max_new_tokens", max_new_tokens),
            "num_return_sequences": self._queries,
        }
        self._device = device
        self._loaded: tuple[Any, Any] | None = None

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """Write queries for texts.

        Args:
            texts: Texts that the queries ask for.

        Returns:
            A list of queries for each text. A query may be empty.

        Raises:
            ModelNotFoundError: There is no such model, or it cannot be loaded.
        """
        import torch

        model, tokenizer = self._load()
        written: list[list[str]] = []
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self._seed)
            for start in range(0, len(texts), self._batch_size):
                lines = self._write(model, tokenizer, texts[start : start + self._batch_size])
                written += [lines[first : first + self._queries] for first in range(0, len(lines), self._queries)]
        return written

    def _write(self, model: Any, tokenizer: Any, texts: Sequence[str]) -> list[str]:
        seq2seq = model.config.is_encoder_decoder
        shortened = tokenizer(list(texts), truncation=True, max_length=_TEXT_TOKENS, add_special_tokens=seq2seq)
        if seq2seq:
            inputs = tokenizer.pad(shortened, return_tensors="pt")
        else:
            cut = tokenizer.batch_decode(shortened["input_ids"], skip_special_tokens=True)
            asked = [self._asked(tokenizer, text) for text in cut]
            marked = bool(tokenizer.chat_template)  # the template writes the tokens that mark the beginning
            inputs = tokenizer(asked, padding=True, return_tensors="pt", add_special_tokens=not marked)
        inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
        tokens = model.generate(**inputs, **self._sampling, pad_token_id=tokenizer.pad_token_id)
        new = tokens if seq2seq else tokens[:, inputs["input_ids"].shape[1] :]
        return [_first_line(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _asked(self, tokenizer: Any, text: str) -> str:
        prompt = self._prompt.replace("{text}", text)
        if not tokenizer.chat_template:
            return prompt
        message = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            torch, transformers = (
                import_library(name, "Writing queries with a model") for name in ("torch", "transformers")
            )
            device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
            try:
                config = transformers.AutoConfig.from_pretrained(self._name)
                of_kind = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
                model = getattr(transformers, of_kind).from_pretrained(self._name, use_safetensors=True)
                tokenizer = transformers.AutoTokenizer.from_pretrained(self._name)
                tokenizer.padding_side = "right" if config.is_encoder_decoder else "left"
            except Exception as error:  # whatever a missing, damaged or foreign model makes the loaders raise
                reason = str(error).strip().partition("\n")[0]
                raise ModelNotFoundError(
                    f"The model {self._name!r} cannot be loaded to write queries ({reason}). Give the folder or the "
                    "name of a sequence-to-sequence or causal language model of transformers."
                ) from error
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            self._loaded = model.to(device).eval(), tokenizer
        return self._loaded


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
