# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embeddings of texts by an embedder's name, with a cache on disk."""

import hashlib
import time
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.encoders.cache import cache_folder, model_identity
from keytok_haystack.encoders.presets import Role, find_preset
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.utils.checks import check_texts
from keytok_haystack.utils.files import replaced_file

if TYPE_CHECKING:
    from keytok_haystack.encoders.language_model import LanguageModelEncoder


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

    The model is loaded when texts that are not in the cache need it, and then stays in memory. Entries are keyed by
    content: the same texts and model files give the same entry, whatever their names; hub models are keyed by their id.
    The files of a model are read for that once, so they must not change during the lifetime of the object. The cache is
    in `$KEYTOK_CACHE`, by default `~/.cache/keytok-haystack`.

    :param embedder: Preset of a language model, `NAME` or `NAME:CHECKPOINT` (`find_preset`), or a sentence-transformers
        model, a hub id or a path.
    :param max_tokens: Maximum length of a language model's input in tokens; by default that of its preset.
    :param dtype: Type of a language model's weights; by default the one that suits the device.
    :param progress_bar: Whether to show progress bars.
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
        file = cache_folder() / "embeddings" / f"{self._cache_key(texts, role, instruction)}.npz"
        if (entry := _read_entry(file)) is not None:
            return entry
        if self._preset is None:
            model = self._sentence_transformer
            started = time.perf_counter()
            encode = model.encode_query if role == "query" else model.encode_document
            embeddings = encode(list(texts), batch_size=32, show_progress_bar=self._progress_bar)
        else:
            encoder = self.encoder
            started = time.perf_counter()
            embeddings = encoder.encode(texts, role, instruction, progress_bar=self._progress_bar)
        embedded = Embedded(np.asarray(embeddings, dtype=np.float32), time.perf_counter() - started)
        with replaced_file(file) as new:
            np.savez(new, embeddings=embedded.embeddings, seconds=np.float64(embedded.seconds or 0.0))
        return embedded

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
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # seconds to import

        try:
            with self._loading_bars():
                return SentenceTransformer(self.embedder)
        except (OSError, ValueError) as error:
            msg = f"'{self.embedder}' is not a sentence-transformers model that can be loaded: {error}"
            raise ValueError(msg) from error

    def _loading_bars(self) -> Any:
        return nullcontext() if self._progress_bar else without_progress_bars()

    def _cache_key(self, texts: Sequence[str], role: Role, instruction: str | None) -> str:
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
        for text in texts:
            digest.update(f"{len(text)}\0{text}".encode())
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
    try:
        from keytok_haystack.encoders.language_model import LanguageModelEncoder  # noqa: PLC0415  # imports torch
    except ModuleNotFoundError as error:
        msg = f"'{embedder}' is a language model, which needs an extra: pip install \"keytok-haystack[transformers]\""
        raise ModuleNotFoundError(msg, name=error.name) from error
    return LanguageModelEncoder(embedder, **options)


def _read_entry(file: Path) -> Embedded | None:
    """Return an entry of the cache; None if it is missing or damaged."""
    try:
        with np.load(file) as entry:
            return Embedded(entry["embeddings"], float(entry["seconds"]), cached=True)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


_NO_OPTIONS = "'{}' is not the preset of a language model, so it takes no instruction, length or dtype."
