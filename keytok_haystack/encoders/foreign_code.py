# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Folders of sentence-transformers models that name code of their own, which is never run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OWN = "sentence_transformers."
_MODULES, _ROUTER = "modules.json", "router_config.json"


def check_without_code(embedder: str) -> None:
    """
    Refuse the folder of an embedder that is made of other modules than those of sentence-transformers.

    :param embedder: Path of the folder; anything else passes, since sentence-transformers runs no code of the hub.
    :raises ValueError: A module is of another library, or of a file in the folder.
    """
    folder = Path(embedder)
    if not folder.is_dir():
        return
    for kind in _module_types(folder):
        if not isinstance(kind, str) or not kind.startswith(_OWN):
            msg = (
                f"The embedder '{embedder}' is made of code that is not part of sentence-transformers ({kind!r}), and "
                "such code is never run: embed the texts yourself, and pass the vectors."
            )
            raise ValueError(msg)


def _module_types(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.rglob(_MODULES)):
        modules = _json_of(file)
        listed = modules if isinstance(modules, list) else []
        yield from (module.get("type") for module in listed if isinstance(module, dict))
    for file in sorted(folder.rglob(_ROUTER)):
        router = _json_of(file)
        types = router.get("types") if isinstance(router, dict) else None
        yield from types.values() if isinstance(types, dict) else ()


def _json_of(file: Path) -> Any:
    """Return the content of a file; what cannot be read, sentence-transformers cannot read either."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
