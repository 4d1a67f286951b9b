# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tensors in files, read row by row when they are asked for."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

_BLOCK_ENTRIES = 1 << 19  # read at a time: 2 MiB of float32, which caches hold
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class CheckpointError(ValueError):
    """A checkpoint that lacks what is needed, or that cannot be read."""


@dataclass(frozen=True)
class Tensor:
    """
    A tensor that is read when it is asked for, widened to float32.

    :param name: Its name and its file, for messages.
    :param shape: Its shape.
    :param rows: Reads the rows from one position to another; raises `CheckpointError`.
    """

    name: str
    shape: tuple[int, ...]
    rows: Callable[[int, int], NDArray[np.float32]]

    def read(self) -> NDArray[np.float32]:
        """Read the whole tensor."""
        return self.rows(0, self.shape[0])

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Read the tensor in blocks of rows; each comes with the position of its first row."""
        size = max(1, _BLOCK_ENTRIES // max(1, int(np.prod(self.shape[1:]))))
        for start in range(0, self.shape[0], size):
            yield start, self.rows(start, min(start + size, self.shape[0]))

    def as_matrix(self) -> Self:
        """Return the tensor, if it is a matrix; raises `CheckpointError`."""
        if len(self.shape) != 2:
            msg = f"The tensor {self.name} has the shape {list(self.shape)}, but a matrix of floats is needed."
            raise CheckpointError(msg)
        return self

    def plus(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> Self:
        """Return this matrix, shape `(V, d)`, plus a product of low rank, shapes `(V, r)` and `(r, d)`."""
        return replace(self, rows=lambda start, stop: self.rows(start, stop) + left[start:stop] @ right)


class TensorFile(Protocol):
    """A file of named tensors."""

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the file, of any floating-point type; raises `CheckpointError`."""


class SafetensorsFile:
    """
    A file in safetensors format: 8 bytes of length, a header in JSON, and the tensors' bytes.

    :raises CheckpointError: It is not one, or cut off within the header.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > path.stat().st_size:
                    raise EOFError  # noqa: TRY301  # reported like any other broken header
                header = json.loads(file.read(length))
                if not isinstance(header, dict):
                    raise EOFError  # noqa: TRY004, TRY301
        except (EOFError, ValueError) as error:
            msg = f"'{path}' is not a safetensors file, or it is cut off."
            raise CheckpointError(msg) from error
        header.pop("__metadata__", None)
        self._header: dict[str, Any] = header
        self._start = 8 + length

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._header)

    def tensor(self, name: str) -> Tensor:
        """
        Return a tensor of the file.

        Its rows are read, not memory-mapped, so that the file's pages do not count as this process's memory. numpy has
        no bfloat16; it is the upper half of a float32.

        :raises CheckpointError: It is not in the file or not of floats; when read: the file is cut off.
        """
        if name not in self._header:
            raise missing_tensor(self._path, name)
        entry = self._header[name]
        shape = tuple(entry["shape"])
        if entry["dtype"] not in _DTYPES or not shape:
            raise unusable_tensor(self._path, name, f"{entry['dtype']} {list(shape)}")
        stored = np.dtype(_DTYPES[entry["dtype"]])
        row = int(np.prod(shape[1:]))
        first = self._start + entry["data_offsets"][0]

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            with self._path.open("rb") as file:
                file.seek(first + start * row * stored.itemsize)
                values = np.fromfile(file, stored, (stop - start) * row)
            if len(values) < (stop - start) * row:
                msg = f"'{self._path}' is cut off before the end of the tensor '{name}'. Download it again."
                raise CheckpointError(msg)
            values = values.reshape(stop - start, *shape[1:])
            if entry["dtype"] == "BF16":
                values = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
            widened: NDArray[np.float32] = values.astype(np.float32, copy=False)
            return widened

        return Tensor(f"'{name}' in '{self._path}'", shape, rows)


def missing_tensor(path: Path, name: str) -> CheckpointError:
    """Return the error of a file that lacks a tensor."""
    return CheckpointError(f"'{path}' does not hold the tensor '{name}', though the checkpoint's index says so.")


def unusable_tensor(path: Path, name: str, kind: str) -> CheckpointError:
    """Return the error of a tensor that is of another type or shape, `kind`."""
    return CheckpointError(
        f"The tensor '{name}' in '{path}' is {kind}, but a matrix of floats is needed: "
        "take a checkpoint that is not quantized."
    )
