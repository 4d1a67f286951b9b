# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.encoders.cache import cache_folder, update_with_model
from keytok_haystack.encoders.presets import Role, find_preset

if TYPE_CHECKING:
    from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.utils.checks import check_texts


@dataclass(frozen=True, eq=False)
class Embedded:
    """
    Texts as embeddings.

    :param embeddings: Shape `(n, d)`.
    :param seconds: How long embedding took when it was done; None for ready-made embeddings.
    :param cached: Whether it was done in an earlier run.
    """

    embeddings: NDArray[np.float32]
    seconds: float | None = None
    cached: bool = False


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
    Embed texts, or take their embeddings from the cache.

    The cache goes by content: the same texts and model files give the same entry, whatever they are called. Of a model
    on the hub only the id is known. The cache is in `$KEYTOK_CACHE`, by default `~/.cache/keytok-haystack`.

    :param texts: The `n` texts.
    :param embedder: A language model's preset, `NAME` or `NAME:CHECKPOINT` (`find_preset`), or a sentence-transformers
        model, a hub id or a path.
    :param role: Which of the embedder's prompts to use, if it has any.
    :param instruction: What a language model embeds them with, in place of its preset's instruction for queries.
    :param max_tokens: How long a language model's input may be; by default what its preset says.
    :param dtype: The type of a language model's weights; by default what suits the device.
    :param progress_bar: Whether to show a progress bar.
    :raises ValueError: The embedder cannot be loaded, or takes no instruction or length, or a text cannot be embedded.
    :raises TypeError: A text is not a string.
    """
    check_texts(texts)
    file = cache_folder() / "embeddings" / f"{_digest(texts, embedder, role, instruction, max_tokens, dtype)}.npz"
    if (entry := _read_entry(file)) is not None:
        return entry

    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415  # seconds to import

    if not progress_bar:
        disable_progress_bar()  # type: ignore[no-untyped-call]  # that of loading weights
    if find_preset(embedder) is not None:
        embedded = _by_language_model(
            texts, embedder, role, instruction, progress_bar=progress_bar, max_tokens=max_tokens, dtype=dtype
        )
    elif instruction is not None or max_tokens is not None or dtype is not None:
        msg = f"'{embedder}' is not the preset of a language model, so it takes no instruction, length or dtype."
        raise ValueError(msg)
    else:
        embedded = _by_sentence_transformers(texts, embedder, role, progress_bar=progress_bar)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
        np.savez(temporary, embeddings=embedded.embeddings, seconds=np.float64(embedded.seconds or 0.0))
    Path(temporary.name).replace(file)
    return embedded


def load_encoder(embedder: str, **options: Any) -> "LanguageModelEncoder":
    """
    Load a language model as an embedder.

    :param embedder: `NAME` or `NAME:CHECKPOINT` (`find_preset`).
    :param options: Those of `LanguageModelEncoder`.
    :raises ValueError: As `LanguageModelEncoder`.
    :raises ModuleNotFoundError: torch or transformers is not installed.
    """
    try:
        from keytok_haystack.encoders.language_model import LanguageModelEncoder  # noqa: PLC0415  # imports torch
    except ModuleNotFoundError as error:
        msg = f"'{embedder}' is a language model, which needs an extra: pip install \"keytok-haystack[transformers]\""
        raise ModuleNotFoundError(msg, name=error.name) from error
    return LanguageModelEncoder(embedder, **options)


def _by_language_model(
    texts: Sequence[str],
    embedder: str,
    role: Role,
    instruction: str | None,
    *,
    progress_bar: bool,
    **options: Any,
) -> Embedded:
    encoder = load_encoder(embedder, **options)
    started = time.perf_counter()
    embeddings = encoder.encode(texts, role, instruction, progress_bar=progress_bar)
    return Embedded(embeddings, time.perf_counter() - started)


def _by_sentence_transformers(texts: Sequence[str], embedder: str, role: Role, *, progress_bar: bool) -> Embedded:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # seconds to import

    try:
        model = SentenceTransformer(embedder)
    except (OSError, ValueError) as error:
        msg = f"'{embedder}' is no sentence-transformers model that can be loaded: {error}"
        raise ValueError(msg) from error
    started = time.perf_counter()
    encode = model.encode_query if role == "query" else model.encode_document
    embeddings = np.asarray(encode(list(texts), batch_size=32, show_progress_bar=progress_bar), dtype=np.float32)
    return Embedded(embeddings, time.perf_counter() - started)


def _read_entry(file: Path) -> Embedded | None:
    """Return what the cache holds; nothing if it is missing or damaged."""
    try:
        with np.load(file) as entry:
            return Embedded(entry["embeddings"], float(entry["seconds"]), cached=True)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _digest(
    texts: Sequence[str],
    embedder: str,
    role: Role,
    instruction: str | None,
    max_tokens: int | None,
    dtype: str | None,
) -> str:
    digest = hashlib.sha256()
    preset = find_preset(embedder)
    if preset is None:
        if role != "document":
            digest.update(role.encode())
        update_with_model(digest, embedder)
    else:
        recipe = replace(preset, checkpoint=None, adapters=(), backbone=None)
        digest.update(repr((recipe, preset.prompt(role, instruction), max_tokens)).encode())
        if dtype is not None:
            digest.update(dtype.encode())
        for checkpoint in (preset.checkpoint, *preset.adapters):
            update_with_model(digest, str(checkpoint))
    for text in texts:
        digest.update(f"{len(text)}\0{text}".encode())
    return digest.hexdigest()[:32]
