# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Read single tensors out of a Hugging Face checkpoint, without torch and without loading the model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class CheckpointError(ValueError):
    """A checkpoint that lacks what is needed, or that cannot be read."""


@dataclass(frozen=True)
class Checkpoint:
    """
    A checkpoint in safetensors format, whole or sharded, in a local folder or on the Hugging Face hub.

    :param name: The folder's path or the hub id.
    :param file: Returns the local path of one of its files, downloading it if need be; raises `CheckpointError`.
    """

    name: str
    file: Callable[[str], Path]

    @classmethod
    def open(cls, path_or_id: str | Path, *, local_files_only: bool = False) -> "Checkpoint":
        """
        Open a checkpoint; files are fetched only when they are asked for.

        :param local_files_only: Take files of a model on the hub from the local cache only.
        :raises CheckpointError: It is neither a folder nor the id of a model that can be reached.
        """
        name, folder = str(path_or_id), Path(path_or_id)

        def local(file: str) -> Path:
            if not (folder / file).is_file():
                msg = f"The checkpoint '{name}' has no {file}."
                raise CheckpointError(msg)
            return folder / file

        def remote(file: str) -> Path:
            try:
                return Path(hf_hub_download(name, file, local_files_only=local_files_only))
            except LocalEntryNotFoundError as error:  # first: it derives from EntryNotFoundError
                msg = f"'{name}' is not a folder, and the Hugging Face hub, where it might be, cannot be reached."
                raise CheckpointError(msg) from error
            except EntryNotFoundError as error:
                msg = f"The checkpoint '{name}' has no {file}."
                raise CheckpointError(msg) from error
            except (HfHubHTTPError, HFValidationError, OSError) as error:
                msg = f"'{name}' is neither a folder nor a model that the Hugging Face hub gives out: {error}"
                raise CheckpointError(msg) from error

        checkpoint = cls(name, local if folder.is_dir() else remote)
        _read_object(checkpoint.file("config.json"))
        return checkpoint

    @property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`; of a multimodal model, the language model's part of it."""
        config = _read_object(self.file("config.json"))
        text_config = config.get("text_config")
        return config | text_config if isinstance(text_config, dict) else config

    def tensor_files(self) -> dict[str, str]:
        """The file that holds each tensor."""
        try:
            index = self.file(_INDEX)
        except CheckpointError:
            return dict.fromkeys(_read_header(self.file(_SINGLE))[0], _SINGLE)
        weight_map = _read_object(index).get("weight_map")
        if not isinstance(weight_map, dict):
            msg = f"'{index}' does not say which file holds which tensor."
            raise CheckpointError(msg)
        return weight_map

    def matrix(self, name: str, file: str) -> NDArray[np.float32]:
        """
        Read one matrix, widened to float32.

        The file is memory-mapped, so only the matrix itself is read. numpy has no bfloat16; it is the upper half of a
        float32.

        :raises CheckpointError: It is no matrix of floats, or the file is cut off.
        """
        path = self.file(file)
        header, start = _read_header(path)
        if name not in header:
            msg = f"'{path}' does not hold the tensor '{name}', though the checkpoint's index says so."
            raise CheckpointError(msg)
        entry = header[name]
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        if dtype not in _DTYPES or len(shape) != 2:
            msg = f"The tensor '{name}' of '{self.name}' is {dtype} {list(shape)}, but a matrix of floats is needed."
            raise CheckpointError(msg)
        try:
            mapped = np.memmap(path, _DTYPES[dtype], mode="r", offset=start + entry["data_offsets"][0], shape=shape)
        except ValueError as error:
            msg = f"'{path}' is cut off before the end of the tensor '{name}'. Download it again."
            raise CheckpointError(msg) from error
        if dtype == "BF16":
            widened = np.empty(shape, dtype=np.uint32)
            np.left_shift(mapped, 16, out=widened, dtype=np.uint32)
            return widened.view(np.float32)
        return mapped.astype(np.float32)


def _read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"'{file}' is not JSON: {error}"
        raise CheckpointError(msg) from error
    if not isinstance(content, dict):
        msg = f"'{file}' is not a JSON object."
        raise CheckpointError(msg)
    return content


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file (8 bytes of length, then JSON) and where its data starts."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise EOFError  # noqa: TRY301  # told like any other broken header
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise EOFError  # noqa: TRY004, TRY301
    except (EOFError, ValueError) as error:
        msg = f"'{path}' is not a safetensors file, or it is cut off."
        raise CheckpointError(msg) from error
    header.pop("__metadata__", None)
    return header, 8 + length
