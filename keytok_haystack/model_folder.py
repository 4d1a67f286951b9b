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
from safetensors.numpy import save as save_tensors

from keytok_haystack.utils.artefacts import (
    ArrayFile,
    ArtefactError,
    json_object,
    one_line,
    opened,
    read_file,
    read_object,
)
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
_LARGEST_DIMENSION = 1 << 16


class ModelFolderError(ArtefactError):
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
    if missing := {_VOCABULARY, _DECODER} - digests.keys():
        raise damaged(path, f"its {_CONFIG} does not name {min(missing)}")
    vocabulary = _read_vocabulary(path, digests[_VOCABULARY])
    return FolderContent(
        config,
        vocabulary,
        _read_arrays(path / _DECODER, digests[_DECODER], vocabulary),
        _read_arrays(path / _SPECTRUM, digests[_SPECTRUM], vocabulary) if _SPECTRUM in digests else None,
    )


def damaged(path: Path, problem: BaseException | str) -> ModelFolderError:
    """Return the error for a folder whose files do not make up a model."""
    return ModelFolderError(f"The key-token model '{path}' is damaged: {one_line(problem).rstrip('.')}; make it again.")


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
        config = read_object(path / _CONFIG)
    except (OSError, ArtefactError):
        return False
    return _is_config(config) and names <= {_CONFIG, *_FILES, *_FORMER_FILES}


def _is_config(config: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(config, dict) and "format_version" in config and "fingerprint" in config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_object(path / _CONFIG)
    except (OSError, ArtefactError) as error:
        msg = f"'{path}' is not a key-token model: it has no readable {_CONFIG} ({str(error).rstrip('.')})."
        raise ModelFolderError(msg) from error
    if not _is_config(config):
        msg = f"'{path}' is not a key-token model: its {_CONFIG} belongs to something else."
        raise ModelFolderError(msg)
    found = config["format_version"]
    if found != FORMAT_VERSION:
        msg = (
            f"The key-token model '{path}' has format version {one_line(str(found))}, but this version of "
            f"keytok-haystack reads {FORMAT_VERSION}: make it again with `keytok fit`, and the key tokens of an index "
            "with `keytok backfill`."
        )
        raise ModelFolderError(msg)
    if not isinstance(config.get("sha256"), dict):
        msg = f"The key-token model '{path}' is damaged: its {_CONFIG} names no files; make it again."
        raise ModelFolderError(msg)
    return config


def _read_vocabulary(path: Path, digest: object) -> dict[str, Any]:
    try:
        content = read_file(path / _VOCABULARY)
        _check_digest(path / _VOCABULARY, hashlib.sha256(content).hexdigest(), digest)
        return json_object(content, _VOCABULARY)
    except (OSError, ArtefactError) as error:
        raise _unreadable(path / _VOCABULARY, error) from error


def _read_arrays(file: Path, digest: object, vocabulary: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Read arrays that belong to a vocabulary: none of them can be longer than its features and one entry more."""
    try:
        stored = ArrayFile.open(file)
        features = vocabulary.get("features")
        longest = max(len(features) if isinstance(features, list) else 0, _LARGEST_DIMENSION) + 1
        for name, array in stored.arrays.items():
            if array.dtype not in ("F16", "F32"):
                msg = f"'{name}' in {file.name} is of the type {array.dtype}"
                raise ArtefactError(msg)  # noqa: TRY301
            if max(array.shape[:1], default=0) > longest or max(array.shape[1:], default=0) > _LARGEST_DIMENSION:
                msg = f"'{name}' in {file.name} has the shape {list(array.shape)}"
                raise ArtefactError(msg)  # noqa: TRY301
        with opened(file) as content:
            _check_digest(file, hashlib.file_digest(content, "sha256").hexdigest(), digest)
        return {name: stored.read(name) for name in stored.arrays}
    except (OSError, ArtefactError) as error:
        raise _unreadable(file, error) from error


def _check_digest(file: Path, found: str, expected: object) -> None:
    if found != expected:
        msg = f"{file.name} is not what was saved"
        raise ArtefactError(msg)


def _unreadable(file: Path, error: Exception) -> ModelFolderError:
    is_missing = isinstance(error, FileNotFoundError)
    return damaged(file.parent, f"{file.name} is missing" if is_missing else error)


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return bytes(save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
