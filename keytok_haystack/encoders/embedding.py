# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embeddings of texts by an embedder's name, with a cache on disk."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.encoders.cache import cache_folder, model_identity
from keytok_haystack.encoders.foreign_code import check_without_code
from keytok_haystack.encoders.inputs import NotFiniteError, check_finite
from keytok_haystack.encoders.presets import Role, find_preset
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.encoders.text_cache import TextCache
from keytok_haystack.utils.artefacts import one_line
from keytok_haystack.utils.checks import check_texts
from keytok_haystack.utils.extras import needs
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.vocabulary import check_tokenizer

if TYPE_CHECKING:
    from keytok_haystack.encoders.language_model import LanguageModelEncoder


_LOADING = Lock()  # once, however many ask at first
_FIRST_BLOCK = 256  # texts
_SECONDS_OF_BLOCK = 10.0  # that a crash loses, about


@dataclass(frozen=True, eq=False)
class Embedded:
    """
    Embeddings of texts.

    :param embeddings: Shape `(n, d)`.
    :param seconds: Time that embedding took when it was done; None for ready-made embeddings.
    :param cached: Whether the embeddings come from an earlier run.
    """

    embeddings: NDArray[np.float32]
    seconds: float | None = None
    cached: bool = False


class CachedEmbedder:
    """
    An embedder by its name, whose embeddings are kept in a cache on disk.

    Each text is kept by itself, block by block while others are embedded: a text that is added to a corpus is embedded
    alone, and what is interrupted goes on where it was. The model is loaded when texts that are not in the cache need
    it, and then stays in memory. Embeddings are keyed by content: the same text and model files give the same,
    whatever their names; hub models are keyed by their id. The files of a model are read for that once, so they must
    not change during the lifetime of the object. The cache is in `$KEYTOK_CACHE`, by default
    `~/.cache/keytok-haystack`; where it cannot be written, embeddings are not kept.

    :param embedder: Preset of a language model, `NAME` or `NAME:CHECKPOINT` (`find_preset`), or a sentence-transformers
        model, a hub id or a path.
    :param max_tokens: Maximum length of a language model's input in tokens; by default that of its preset.
    :param dtype: Type of a language model's weights; by default the one that suits the device.
    :param progress_bar: Whether to show progress: as a bar, or, if the output is not a terminal, as a line now and
        then.
    :raises ValueError: The embedder is a preset without a checkpoint, or takes no length or dtype.
    """

    def __init__(
        self, embedder: str, *, max_tokens: int | None = None, dtype: str | None = None, progress_bar: bool = True
    ) -> None:
        self.embedder = embedder
        self._preset = find_preset(embedder)
        if self._preset is None and not (max_tokens is None and dtype is None):
            raise ValueError(_NO_OPTIONS.format(embedder))
        self._max_tokens = max_tokens
        self._dtype = dtype
        self._progress_bar = progress_bar

    def embed(self, texts: Sequence[str], role: Role = "document", instruction: str | None = None) -> Embedded:
        """
        Embed texts, or read their embeddings from the cache.

        :param texts: The `n` texts.
        :param role: Role that selects the embedder's prompt, if it has prompts.
        :param instruction: Instruction for a language model, in place of its preset's instruction for queries.
        :raises ValueError: The embedder cannot be loaded, or takes no instruction, or a text cannot be embedded.
        :raises TypeError: A text is not a string.
        """
        check_texts(texts)
        if self._preset is None and instruction is not None:
            raise ValueError(_NO_OPTIONS.format(self.embedder))
        cache = TextCache(cache_folder() / "embeddings" / self._cache_key(role, instruction))
        found = cache.find(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            encode = self._encode_function(texts, role, instruction)
            try:
                new = self._embed_missing(missing, encode, cache)
            except NotFiniteError as error:
                raise NotFiniteError(texts.index(missing[error.position]), error.dtype) from None
            if len({len(embedding) for embedding, _ in (*found.values(), *new.values())}) > 1:
                # a model of the hub, which is known by its id, has changed
                new = self._embed_missing(list(dict.fromkeys(texts)), encode, cache)
            found |= new
        rows = [found[text] for text in texts]
        embeddings = np.array([embedding for embedding, _ in rows], dtype=np.float32)
        seconds = sum(seconds for _, seconds in found.values())
        return Embedded(embeddings, seconds, cached=not missing)

    def _encode_function(
        self, texts: Sequence[str], role: Role, instruction: str | None
    ) -> Callable[[list[str]], NDArray[np.float32]]:
        """
        Return the function that embeds texts, after checking all of them.

        :raises ValueError: The embedder cannot be loaded, or a text cannot be embedded.
        """
        if self._preset is None:
            with _LOADING:
                model = self._sentence_transformer
            encode = model.encode_query if role == "query" else model.encode_document
            return partial(encode, batch_size=32, show_progress_bar=False)
        with _LOADING:
            encoder = self.encoder
        encoder.inputs(texts, role, instruction)
        return partial(encoder.encode, role=role, instruction=instruction)

    def _embed_missing(
        self, missing: list[str], encode: Callable[[list[str]], NDArray[np.float32]], cache: TextCache
    ) -> dict[str, tuple[NDArray[np.float32], float]]:
        """Embed texts in blocks, which are kept as soon as they are there, and return the embeddings."""
        found: dict[str, tuple[NDArray[np.float32], float]] = {}
        if len(missing) > _FIRST_BLOCK:
            missing.sort(key=len, reverse=True)  # those of a batch are padded to the longest
        start, size = 0, _FIRST_BLOCK
        shown = self._progress_bar and len(missing) > 1
        with progress_of("Embedding", "texts", shown=shown, total=len(missing)) as progress:
            while start < len(missing):
                block = missing[start : start + size]
                started = time.perf_counter()
                try:
                    embeddings = np.asarray(encode(block), dtype=np.float32)
                    check_finite(embeddings, "its type")
                except NotFiniteError as error:
                    raise NotFiniteError(start + error.position, error.dtype) from None
                seconds = time.perf_counter() - started
                cache.add(block, embeddings, seconds)
                found |= {
                    text: (embedding, seconds / len(block)) for text, embedding in zip(block, embeddings, strict=True)
                }
                progress.update(len(block))
                start += len(block)
                if seconds < _SECONDS_OF_BLOCK / 2:
                    size *= 2
        cache.merge()
        return found

    @cached_property
    def encoder(self) -> "LanguageModelEncoder":
        """
        The language model in memory, loaded on first use.

        :raises ValueError: The embedder is not a language model, or it cannot be loaded.
        :raises ModuleNotFoundError: torch or transformers is not installed.
        """
        with self._loading_bars():
            return load_encoder(self.embedder, max_tokens=self._max_tokens, dtype=self._dtype)

    @cached_property
    def _sentence_transformer(self) -> Any:
        check_without_code(self.embedder)
        check_tokenizer(self.embedder)
        with needs("sentence-transformers", f"The embedder '{self.embedder}' needs an extra"):
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # seconds to import

        try:
            with self._loading_bars():
                return SentenceTransformer(self.embedder, trust_remote_code=False)
        except Exception as error:  # broken files raise a dozen types of errors
            msg = f"'{self.embedder}' is not a sentence-transformers model that can be loaded: {one_line(error)}"
            raise ValueError(msg) from error

    def _loading_bars(self) -> Any:
        return nullcontext() if self._progress_bar and sys.stderr.isatty() else without_progress_bars()

    def _cache_key(self, role: Role, instruction: str | None) -> str:
        digest = hashlib.sha256()
        if self._preset is None:
            if role != "document":
                digest.update(role.encode())
        else:
            recipe = replace(self._preset, checkpoint=None, adapters=(), backbone=None)
            digest.update(repr((recipe, self._preset.prompt(role, instruction), self._max_tokens)).encode())
            if self._dtype is not None:
                digest.update(self._dtype.encode())
        digest.update(self._identity)
        return digest.hexdigest()[:32]

    @cached_property
    def _identity(self) -> bytes:
        preset = self._preset
        models = (self.embedder,) if preset is None else (str(preset.checkpoint), *preset.adapters)
        return b"".join(map(model_identity, models))


def embed(
    texts: Sequence[str],
    embedder: str,
    *,
    role: Role = "document",
    instruction: str | None = None,
    max_tokens: int | None = None,
    dtype: str | None = None,
    progress_bar: bool = True,
) -> Embedded:
    """
    Embed texts once with an embedder, or read their embeddings from the cache.

    To embed more than once with the same embedder, keep a `CachedEmbedder`, which loads its model once.

    :param texts: The `n` texts.
    :param embedder: As for `CachedEmbedder`.
    :param role: Role that selects the embedder's prompt, if it has prompts.
    :param instruction: Instruction for a language model, in place of its preset's instruction for queries.
    :param max_tokens: Maximum length of a language model's input in tokens; by default that of its preset.
    :param dtype: Type of a language model's weights; by default the one that suits the device.
    :param progress_bar: Whether to show progress bars.
    :raises ValueError: The embedder cannot be loaded, or takes no instruction, length or dtype, or a text cannot be
        embedded.
    :raises TypeError: A text is not a string.
    """
    cached = CachedEmbedder(embedder, max_tokens=max_tokens, dtype=dtype, progress_bar=progress_bar)
    return cached.embed(texts, role, instruction)


def load_encoder(embedder: str, **options: Any) -> "LanguageModelEncoder":
    """
    Load a language model as an embedder.

    :param embedder: `NAME` or `NAME:CHECKPOINT` (`find_preset`).
    :param options: Keyword arguments of `LanguageModelEncoder`.
    :raises ValueError: As `LanguageModelEncoder`.
    :raises ModuleNotFoundError: torch or transformers is not installed.
    """
    with needs("transformers", f"'{embedder}' is a language model, which needs an extra"):
        from keytok_haystack.encoders.language_model import LanguageModelEncoder  # noqa: PLC0415  # imports torch
    return LanguageModelEncoder(embedder, **options)


_NO_OPTIONS = "'{}' is not the preset of a language model, so it takes no instruction, length or dtype."
