# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in formats that numpy and `tokenizers` cannot read: torch and transformers read them, if installed."""

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from keytok_haystack.decoders.checkpoints.tensors import CheckpointError, Tensor, missing_tensor, unusable_tensor
from keytok_haystack.utils.artefacts import one_line, opened, refused_as


class PickledFile:
    """
    A file of tensors as torch saves them (`pytorch_model.bin`).

    torch unpickles tensors and nothing else (`weights_only`), and maps the file into memory, so that only those tensors
    that are used are read.

    :raises CheckpointError: It is not such a file, or torch is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import torch  # noqa: PLC0415  # takes seconds to import
        except ModuleNotFoundError as error:
            msg = (
                f"'{path}' is not in safetensors format, and reading it needs torch: "
                'pip install "keytok-haystack[transformers]"'
            )
            raise CheckpointError(msg) from error
        self._path = path
        with refused_as(CheckpointError), opened(path) as file:
            self._size = path.stat().st_size
            is_packed = _is_compressed(file)
        if is_packed:
            msg = f"'{path}' is compressed, as torch does not save tensors: save the model in safetensors format."
            raise CheckpointError(msg)
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # of many types, by what is wrong with the file
            msg = (
                f"'{path}' is not a file of tensors that torch can map into memory and read without running code: "
                f"{one_line(error)} If you trust it, load the model with the software that made it and save "
                "it in safetensors format."
            )
            raise CheckpointError(msg) from error
        if not isinstance(tensors, dict):
            msg = f"'{path}' does not hold tensors by their names."
            raise CheckpointError(msg)
        self._tensors = tensors

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return [name for name in self._tensors if isinstance(name, str)]

    def tensor(self, name: str) -> Tensor:
        """
        Return a tensor of the file.

        :raises CheckpointError: It is not in the file, or not of floats.
        """
        if name not in self._tensors:
            raise missing_tensor(self._path, name)
        tensor = self._tensors[name]
        shape = tuple(getattr(tensor, "shape", ()))
        if not shape or not tensor.is_floating_point():
            raise unusable_tensor(self._path, name, f"{getattr(tensor, 'dtype', type(tensor).__name__)} {list(shape)}")
        if tensor.is_sparse or tensor.numel() * tensor.element_size() > self._size:
            # a view that repeats what is stored, of any size
            msg = (
                f"The tensor '{name}' in '{self._path}' is larger than the file: save the model in safetensors format."
            )
            raise CheckpointError(msg)

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            values: NDArray[np.float32] = tensor[start:stop].float().numpy()
            return values

        return Tensor(f"'{name}' in '{self._path}'", shape, rows)


def _is_compressed(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist())
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return False  # torch says what is the matter


def converted_tokenizer(name: str, *, local_files_only: bool) -> Tokenizer:
    """
    Convert a tokenizer of an older format (`vocab.json` and `merges.txt`, `vocab.txt`, `tokenizer.model`).

    :param name: A folder, or a hub id. No code from it is run.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    :raises CheckpointError: It cannot be converted, or transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415  # takes seconds to import
    except ModuleNotFoundError as error:
        msg = (
            f"The checkpoint '{name}' has no tokenizer.json, and converting its tokenizer needs transformers: "
            'pip install "keytok-haystack[transformers]"'
        )
        raise CheckpointError(msg) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only, trust_remote_code=False)
        converted = tokenizer.backend_tokenizer
    except Exception as error:  # of many types, by the tokenizer's format
        msg = (
            f"The checkpoint '{name}' has no tokenizer.json, and its tokenizer cannot be converted to one: "
            f"{one_line(error)}"
        )
        raise CheckpointError(msg) from error
    if not isinstance(converted, Tokenizer):
        msg = f"The checkpoint '{name}' has no tokenizer.json, and its tokenizer cannot be converted to one."
        raise CheckpointError(msg)
    return converted
