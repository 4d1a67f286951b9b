# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tensors in files, read row by row when they are asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.utils.artefacts import ArrayFile, ArtefactError, refused_as

_BLOCK_ENTRIES = 1 << 19  # read at a time: 2 MiB of float32, which caches hold


class CheckpointError(ArtefactError):
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
        if len(self.shape) != 2 or 0 in self.shape:
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
    A file in safetensors format.

    :raises CheckpointError: It is not one, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with refused_as(CheckpointError):
            self._file = ArrayFile.open(path)

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self._file.arrays)

    def tensor(self, name: str) -> Tensor:
        """
        Return a tensor of the file.

        :raises CheckpointError: It is not in the file or not of floats; when read: it is not finite.
        """
        if name not in self._file.arrays:
            raise missing_tensor(self._path, name)
        stored = self._file.arrays[name]
        if not stored.is_float or not stored.shape:
            raise unusable_tensor(self._path, name, f"{stored.dtype} {list(stored.shape)}")

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            with refused_as(CheckpointError):
                values = self._file.read_rows(name, start, stop)
            widened: NDArray[np.float32] = values.astype(np.float32, copy=False)
            return widened

        return Tensor(f"'{name}' in '{self._path}'", stored.shape, rows)


def missing_tensor(path: Path, name: str) -> CheckpointError:
    """Return the error of a file that lacks a tensor."""
    return CheckpointError(f"'{path}' does not hold the tensor '{name}', though the checkpoint's index says so.")


def unusable_tensor(path: Path, name: str, kind: str) -> CheckpointError:
    """Return the error of a tensor that is of another type or shape, `kind`."""
    return CheckpointError(
        f"The tensor '{name}' in '{path}' is {kind}, but a matrix of floats is needed: "
        "take a checkpoint that is not quantized."
    )
