# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The cache on disk: its folder, and what identifies a model in it."""

import hashlib
import os
from itertools import islice
from pathlib import Path

from keytok_haystack.utils.artefacts import (
    LONGEST_CHAIN,
    ArtefactError,
    endless_chain,
    opened,
    read_file,
    read_object,
    refused_as,
)

_WEIGHTS = (".safetensors", ".bin", ".gguf")
_MODEL_FILES = (".json", ".txt", ".model", *_WEIGHTS)
_MOST_FILES = 10_000  # of a model, with all that lies in its folder
_DESCRIPTIONS = ("modules.json", "config.json", "adapter_config.json")
RECORD = "training.json"
"""Name of the report of a training within the folder of the trained embedder; it does not count as one of its files."""


def cache_folder() -> Path:
    """Return the folder of the cache: `$KEYTOK_CACHE`, by default `~/.cache/keytok-haystack`."""
    return Path(os.environ.get("KEYTOK_CACHE") or Path.home() / ".cache" / "keytok-haystack")


def model_identity(path_or_id: str, *, chain: int = LONGEST_CHAIN) -> bytes:
    """
    Return what identifies a model: the names, sizes and digests of its files, or the id of one on the hub.

    The identity of an adapter includes that of its base.

    :param path_or_id: Path of the model, or its id.
    :param chain: Maximum number of adapters that it can be made of.
    :raises ValueError: There is something at the path that is no model, or an adapter without end.
    """
    path = Path(path_or_id)
    if not os.path.exists(path):  # noqa: PTH110  # Path's fails where a name is too long
        return path_or_id.encode(errors="surrogatepass")
    if not (path.is_file() or any((path / name).is_file() for name in _DESCRIPTIONS)):
        msg = f"'{path}' is not a model: it has no {', '.join(_DESCRIPTIONS)}."
        raise ValueError(msg)
    files = [path]
    if path.is_dir():
        content = list(islice(path.rglob("*"), _MOST_FILES + 1))
        if len(content) > _MOST_FILES:
            msg = f"'{path}' is not a model: there are more than {_MOST_FILES:,} files in it."
            raise ValueError(msg)
        found = (each for each in content if each.suffix in _MODEL_FILES and each.name != RECORD)
        files = sorted(each for each in found if each.is_file())
    identity = b""
    with refused_as(ArtefactError):
        for file in files:
            identity += f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode(errors="surrogatepass")
            identity += _digest(file)
        adapter = path / "adapter_config.json"
        base = read_object(adapter).get("base_model_name_or_path") if adapter.is_file() else None
    if base:
        if chain == 0:
            raise ValueError(endless_chain(path))
        identity += model_identity(str(base), chain=chain - 1)
    return identity


def _digest(file: Path) -> bytes:
    """Return the digest of a file; one of no weights that is large is refused, which could take any time."""
    if file.suffix not in _WEIGHTS:
        return hashlib.sha256(read_file(file)).digest()
    with opened(file) as content:
        return hashlib.file_digest(content, "sha256").digest()
