# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The cache on disk: its folder, and what identifies a model in it."""

import hashlib
import json
import os
from pathlib import Path

_MODEL_FILES = (".json", ".safetensors", ".bin", ".txt", ".model", ".gguf")
_DESCRIPTIONS = ("modules.json", "config.json", "adapter_config.json")
RECORD = "training.json"
"""Name of the report of a training within the folder of the trained embedder; it does not count as one of its files."""


def cache_folder() -> Path:
    """Return the folder of the cache: `$KEYTOK_CACHE`, by default `~/.cache/keytok-haystack`."""
    return Path(os.environ.get("KEYTOK_CACHE") or Path.home() / ".cache" / "keytok-haystack")


def model_identity(path_or_id: str) -> bytes:
    """
    Return what identifies a model: the names, sizes and digests of its files, or the id of one on the hub.

    The identity of an adapter includes that of its base.

    :raises ValueError: There is something at the path that is no model.
    """
    path = Path(path_or_id)
    if not path.exists():
        return path_or_id.encode()
    if not (path.is_file() or any((path / name).is_file() for name in _DESCRIPTIONS)):
        msg = f"'{path}' is not a model: it has no {', '.join(_DESCRIPTIONS)}."
        raise ValueError(msg)
    files = [path]
    if path.is_dir():
        found = (each for each in path.rglob("*") if each.suffix in _MODEL_FILES and each.name != RECORD)
        files = sorted(each for each in found if each.is_file())
    identity = b""
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").digest()
        identity += f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode() + digest
    adapter = path / "adapter_config.json"
    if adapter.is_file() and (base := json.loads(adapter.read_text("utf-8")).get("base_model_name_or_path")):
        identity += model_identity(str(base))
    return identity
