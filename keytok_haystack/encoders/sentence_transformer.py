# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_MODEL_FILES = (".json", ".safetensors", ".bin", ".txt", ".model")


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
    texts: Sequence[str], embedder: str, *, role: Literal["document", "query"] = "document", progress_bar: bool = True
) -> Embedded:
    """
    Embed texts with a sentence-transformers model, or take them from the cache.

    The cache goes by content: the same texts and model files give the same entry, whatever they are called. Of a model
    on the hub only the id is known. The cache is in `$KEYTOK_CACHE`, by default `~/.cache/keytok-haystack`.

    :param texts: The `n` texts.
    :param embedder: A hub id or the path of a model.
    :param role: Which of the model's prompts to use, if it has any.
    :param progress_bar: Whether to show a progress bar.
    """
    file = _cache_folder() / f"{_digest(texts, embedder, role)}.npz"
    if (entry := _read_entry(file)) is not None:
        return entry

    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # seconds to import; not needed when cached
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    if not progress_bar:
        disable_progress_bar()  # type: ignore[no-untyped-call]  # that of loading weights
    try:
        model = SentenceTransformer(embedder)
    except (OSError, ValueError) as error:
        msg = f"'{embedder}' is no sentence-transformers model that can be loaded: {error}"
        raise ValueError(msg) from error
    started = time.perf_counter()
    encode = model.encode_query if role == "query" else model.encode_document
    embeddings = np.asarray(encode(list(texts), batch_size=32, show_progress_bar=progress_bar), dtype=np.float32)
    embedded = Embedded(embeddings, time.perf_counter() - started)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
        np.savez(temporary, embeddings=embeddings, seconds=np.float64(embedded.seconds or 0.0))
    Path(temporary.name).replace(file)
    return embedded


def _read_entry(file: Path) -> Embedded | None:
    """Return what the cache holds; nothing if it is missing or damaged."""
    try:
        with np.load(file) as entry:
            return Embedded(entry["embeddings"], float(entry["seconds"]), cached=True)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _cache_folder() -> Path:
    return Path(os.environ.get("KEYTOK_CACHE") or Path.home() / ".cache" / "keytok-haystack") / "embeddings"


def _digest(texts: Sequence[str], embedder: str, role: str) -> str:
    digest = hashlib.sha256()
    if role != "document":
        digest.update(role.encode())
    folder = Path(embedder)
    if folder.is_dir():
        for file in sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES):
            digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    else:
        digest.update(embedder.encode())
    for text in texts:
        digest.update(f"{len(text)}\0{text}".encode())
    return digest.hexdigest()[:32]
