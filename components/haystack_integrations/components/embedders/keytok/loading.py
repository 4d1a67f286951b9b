# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""One key-token model in memory for all components of a process that use it."""

from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from keytok_haystack import KeyTokenModel, ModelFolderError
from keytok_haystack.utils.artefacts import read_file, refused_as

_LOADED: WeakValueDictionary[tuple[Path, bytes], KeyTokenModel] = WeakValueDictionary()
_LOCK = Lock()


def load_model(path: str) -> KeyTokenModel:
    """
    Load a key-token model, or return the one that another component holds; freed when no component holds it.

    :raises FileNotFoundError: There is no folder at the path.
    :raises ModelFolderError: The folder is not a key-token model that can be read.
    """
    config = Path(path) / "config.json"
    with _LOCK:
        # the configuration holds digests of all other files, so a model that was made anew is loaded anew
        with refused_as(ModelFolderError):
            key = (Path(path).resolve(), read_file(config) if config.is_file() else b"")
        model = _LOADED.get(key)
        if model is None:
            model = _LOADED[key] = KeyTokenModel.load(path)
        return model
