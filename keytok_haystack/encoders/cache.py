# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Where what takes long is kept for the next run."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_MODEL_FILES = (".json", ".safetensors", ".bin", ".txt", ".model", ".gguf")
RECORD = "training.json"  # of how a model was trained and what it is good for: none of its files


def cache_folder() -> Path:
    """Return the folder of the cache: `$KEYTOK_CACHE`, by default `~/.cache/keytok-haystack`."""
    return Path(os.environ.get("KEYTOK_CACHE") or Path.home() / ".cache" / "keytok-haystack")


def update_with_model(digest: Any, path_or_id: str) -> None:
    """
    Let a digest of hashlib go by a model: by the content of its files, or of one on the hub by its id.

    An adapter goes by its base, too.
    """
    path = Path(path_or_id)
    if not path.exists():
        digest.update(path_or_id.encode())
        return
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix in _MODEL_FILES and each.name != RECORD)
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    adapter = path / "adapter_config.json"
    if adapter.is_file() and (base := json.loads(adapter.read_text("utf-8")).get("base_model_name_or_path")):
        update_with_model(digest, str(base))
