# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The folder of a key-token model: written whole or not at all, and checked when it is read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from keytok_haystack.utils.files import replaced_folder, write_json

FORMAT_VERSION = 3
_CONFIG, _VOCABULARY, _DECODER, _SPECTRUM = (
    "config.json",
    "vocabulary.json",
    "decoder.safetensors",
    "spectrum.safetensors",
)
_FORMER_FILES = ("tokenizer.json",)  # of format 2, whose folders are replaced, but not read
_FILES = (_VOCABULARY, _DECODER, _SPECTRUM)


class ModelFolderError(ValueError):
    """A folder that is not a key-token model, or not one that this version can read."""


@dataclass(frozen=True)
class FolderContent:
    """
    Content of a model folder.

    :param config: Settings, among them the `fingerprint`.
    :param vocabulary: Kind, features and settings of the vocabulary.
    :param decoder: Arrays of the decoder by their names.
    :param spectrum: Arrays of the spectrum by their names, if there is one.
    """

    config: Mapping[str, Any]
    vocabulary: Mapping[str, Any]
    decoder: Mapping[str, NDArray[Any]]
    spectrum: Mapping[str, NDArray[Any]] | None


def write_model_folder(path: Path, content: FolderContent) -> None:
    """
    Write a model folder, replacing a key-token model that is already there.

    The folder appears whole or not at all: it is written beside its place and moved there.

    :param path: Path of the folder; its parents are created.
    :param content: Content of the folder. Format, version and digests are added to its configuration.
    :raises FileExistsError: Something else than a key-token model is at the path.
    """
    check_replaceable(path)
    files = {_VOCABULARY: json.dumps(content.vocabulary, ensure_ascii=False).encode(), _DECODER: _pack(content.decoder)}
    if content.spectrum is not None:
        files[_SPECTRUM] = _pack(content.spectrum)
    config = {
        "format_version": FORMAT_VERSION,
        "keytok_haystack_version": version("keytok-haystack"),
        **content.config,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    with replaced_folder(path) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        write_json(folder / _CONFIG, config)


def read_model_folder(path: Path) -> FolderContent:
    """
    Read a model folder.

    A folder that is replaced meanwhile is read again.

    :raises FileNotFoundError: There is no folder at the path.
    :raises ModelFolderError: The folder is not a key-token model, of another format version, or damaged.
    """
    while True:
        before = _identity(path)
        try:
            return _read(path)
        except (FileNotFoundError, ModelFolderError):
            if _identity(path) == before:
                raise


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a folder from one that has taken its place; None if there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def _read(path: Path) -> FolderContent:
    if not path.is_dir():
        msg = f"There is no key-token model at '{path}'. Make one with `keytok fit DATA --output {path}`."
        raise FileNotFoundError(msg)
    config = _read_config(path)
    digests = {name: digest for name, digest in config["sha256"].items() if name in _FILES}
    files = {name: _read_checked(path / name, digest) for name, digest in digests.items()}
    try:
        return FolderContent(
            config,
            json.loads(files[_VOCABULARY]),
            load_tensors(files[_DECODER]),
            load_tensors(files[_SPECTRUM]) if _SPECTRUM in files else None,
        )
    except Exception as error:  # safetensors raises errors of its own
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ModelFolderError:
    """Return the error for a folder whose files do not make up a model."""
    return ModelFolderError(f"The key-token model '{path}' is damaged: {type(error).__name__}: {error}. Make it again.")


def check_replaceable(path: Path) -> None:
    """
    Refuse a path at which a model must not be saved.

    :raises FileExistsError: Something else than a key-token model is there.
    """
    if path.exists() and not _is_replaceable(path):
        msg = f"'{path}' exists and is not a key-token model, so it is not replaced. Choose another path."
        raise FileExistsError(msg)


def has_model(path: Path) -> bool:
    """Return whether a key-token model is at a path, in whatever state, that would be replaced by another one."""
    return path.is_dir() and any(path.iterdir()) and _is_replaceable(path)


def _is_replaceable(path: Path) -> bool:
    """Return whether a path holds nothing but a key-token model, or nothing at all."""
    if not path.is_dir():
        return False
    names = {file.name for file in path.iterdir()}
    if not names:
        return True
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return _is_config(config) and names <= {_CONFIG, *_FILES, *_FORMER_FILES}


def _is_config(config: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(config, dict) and "format_version" in config and "fingerprint" in config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"'{path}' is not a key-token model: it has no readable {_CONFIG} ({error})."
        raise ModelFolderError(msg) from error
    if not _is_config(config):
        msg = f"'{path}' is not a key-token model: its {_CONFIG} belongs to something else."
        raise ModelFolderError(msg)
    if config["format_version"] != FORMAT_VERSION:
        msg = (
            f"The key-token model '{path}' has format version {config['format_version']}, but this version of "
            f"keytok-haystack reads {FORMAT_VERSION}: make it again with `keytok fit`, and the key tokens of an index "
            "with `keytok backfill`."
        )
        raise ModelFolderError(msg)
    if not isinstance(config.get("sha256"), dict):
        msg = f"The key-token model '{path}' is damaged: its {_CONFIG} names no files. Make it again."
        raise ModelFolderError(msg)
    return config


def _read_checked(file: Path, digest: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        msg = f"The key-token model '{file.parent}' is damaged: {file.name} is missing. Make it again."
        raise ModelFolderError(msg) from error
    if hashlib.sha256(content).hexdigest() != digest:
        msg = f"The key-token model '{file.parent}' is damaged: {file.name} is not what was saved. Make it again."
        raise ModelFolderError(msg)
    return content


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return bytes(save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
