# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Folders of sentence-transformers models that name code of their own, which is never run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keytok_haystack.utils.artefacts import ArtefactError, is_folder, one_line, parsed_json, read_file

_OWN = "sentence_transformers."
_MODULES = "modules.json"
_ROUTERS = ("router_config.json", "config.json")  # of modules that are made of others; the latter is the former name


def check_without_code(embedder: str) -> None:
    """
    Refuse the folder of an embedder that is made of other modules than those of sentence-transformers.

    :param embedder: Path of the folder; anything else passes, since sentence-transformers runs no code of the hub.
    :raises ValueError: A module is of another library, or of a file in the folder.
    """
    folder = Path(embedder)
    if not is_folder(folder):
        return
    for kind in _module_types(folder):
        if not isinstance(kind, str) or not kind.startswith(_OWN):
            msg = (
                f"The embedder '{embedder}' is made of code that is not part of sentence-transformers "
                f"({one_line(repr(kind))}), and "
                "such code is never run: embed the texts yourself, and pass the vectors."
            )
            raise ValueError(msg)


def _module_types(folder: Path) -> Iterator[Any]:
    """Yield what the modules are made of that sentence-transformers would load: those that are named, and no others."""
    listed = _json_of(folder / _MODULES)
    modules = [module for module in listed if isinstance(module, dict)] if isinstance(listed, list) else []
    yield from (module.get("type") for module in modules)
    folders = [str(module.get("path", "")) for module in modules]
    seen = set()
    while folders:
        try:
            module = os.path.realpath(folder / folders.pop())
        except ValueError:  # no name that a folder can have
            continue
        if module in seen:
            continue
        seen.add(module)
        for name in _ROUTERS:
            router = _json_of(Path(module) / name)
            types = router.get("types") if isinstance(router, dict) else None
            if isinstance(types, dict):
                yield from types.values()
                folders += [f"{module}/{part}" for part in types]


def _json_of(file: Path) -> Any:
    """Return the content of a file; what cannot be read, sentence-transformers cannot read either."""
    try:
        return parsed_json(read_file(file), str(file))
    except (OSError, ArtefactError):
        return {}
