"""Encoders from one line of text, for the command line: `bm25,chars,dense=MODEL,sparse=MODEL,late=MODEL`."""

from __future__ import annotations

from typing import Any

from hybridsearch.encoders import Encoder
from hybridsearch.encoders.bm25 import BM25
from hybridsearch.encoders.char_ngrams import CharNGrams
from hybridsearch.encoders.native import NativeBM25
from hybridsearch.encoders.runtimes import Precision, Runtime
from hybridsearch.errors import InvalidArgumentError
from hybridsearch.registry import find

EXAMPLE = "bm25,dense=sentence-transformers/all-MiniLM-L6-v2"

_MODELS = {"dense": "dense", "sparse": "sparse", "late": "late-interaction"}
"""The registered names of the encoders that run a model."""


def make_encoders(
    spec: str,
    language: str | None,
    *,
    template: str | None = None,
    precision: Precision | None = None,
    runtime: Runtime | None = None,
    **lexical: Any,
) -> dict[str, Encoder]:
    """Make the encoders that a text such as `bm25,dense=MODEL` describes.

    Args:
        spec: Encoders between commas: `bm25`, `chars`, `dense=MODEL`, `sparse=MODEL`, `late=MODEL`,
            `native=ANALYZER`.
        language: Language of BM25, or `"none"`. None for english.
        template: Template of the encoders with a model. None for title and text.
        precision: Number format in which the models compute.
        runtime: Library that runs these models.
        lexical: Other arguments of BM25.

    Returns:
        The encoders by name.

    Raises:
        InvalidArgumentError: A part of the text is not an encoder, an encoder comes twice, or an argument is for an
            encoder that the text does not have.
    """
    encoders: dict[str, Encoder] = {}
    for part in spec.split(","):
        name, given, model = (text.strip() for text in part.partition("="))
        if name not in ("bm25", "chars", "native", *_MODELS):
            raise InvalidArgumentError(
                f"--retrievers has {part.strip()!r}: known are bm25, chars, dense=MODEL, sparse=MODEL, late=MODEL and "
                f"native=ANALYZER, as in {EXAMPLE}."
            )
        if name in encoders:
            raise InvalidArgumentError(
                f"--retrievers has {name!r} twice: name it once. In Python an index can have several of them."
            )
        if name == "bm25":
            if given:
                raise InvalidArgumentError("--retrievers: bm25 takes no model. Set its language with --language.")
            encoders[name] = BM25(language=None if language == "none" else language or "english", **lexical)
        elif name == "chars":
            if given:
                raise InvalidArgumentError("--retrievers: chars takes no model. In Python it is hs.CharNGrams(n=...).")
            encoders[name] = CharNGrams()
        elif name == "native":
            encoders[name] = NativeBM25(model or "standard")
        elif not model:
            raise InvalidArgumentError(f"--retrievers: {name} needs a model, a folder or a hub name, as in {EXAMPLE}.")
        else:
            make = find("encoder", _MODELS[name])
            encoders[name] = make(model, template=template, precision=precision, runtime=runtime)
    for option, wanted in {"language": language, **lexical}.items():
        if wanted is not None and "bm25" not in encoders:
            raise InvalidArgumentError(f"--{option} is for bm25, which --retrievers {spec} does not have.")
    if (precision or runtime) and not _MODELS.keys() & encoders.keys():
        option = "precision" if precision else "runtime"
        raise InvalidArgumentError(
            f"--{option} is for dense, sparse and late, which --retrievers {spec} does not have."
        )
    if template is not None and not _MODELS.keys() & encoders.keys():
        raise InvalidArgumentError(
            f"--template is for dense, sparse and late, which --retrievers {spec} does not have. bm25 takes --fields."
        )
    return encoders
