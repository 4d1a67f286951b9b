# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Files that others have made: checked before anything of the size that they claim is allocated."""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

_LARGEST_JSON = 1 << 26  # bytes; the largest tokenizers have half of it
_LARGEST_OBJECTS = 1 << 28  # bytes that the objects of a JSON document may take, about
_OBJECT, _LIST, _VALUE = 256, 64, 64  # bytes that one takes, but for its characters
_LARGEST_HEADER = 100_000_000  # bytes, as the format says
_MOST_AXES = 64
_LONGEST_MESSAGE, _LONGEST_QUOTE = 2000, 200  # characters of an error, and of another library's within it

LONGEST_CHAIN = 4
"""Maximum number of adapters that adapt each other."""

_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_NUMPY = {"U8": "u1", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
_EXPONENTS = {"F16": 0x7C00, "BF16": 0x7F80}  # of what is not finite


class ArtefactError(ValueError):
    """
    A file that is not what it should be.

    :param message: What is wrong with it. It becomes one line of readable length, whatever it cites of the file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, _LONGEST_MESSAGE))


@contextmanager
def refused_as(error: type[ArtefactError]) -> Iterator[None]:
    """Raise what is wrong with a file as an error of another kind."""
    try:
        yield
    except (ArtefactError, OSError) as found:
        raise error(str(found)) from found


def endless_chain(adapter: str | Path) -> str:
    """Return what is wrong with an adapter at the end of a chain that is too long."""
    return f"'{adapter}' is an adapter of an adapter, and so on without end: name the model that it adapts."


def is_folder(name: str | Path) -> bool:
    """Return whether a name is that of a folder; not even the operating system's refusal of a name is an error."""
    return os.path.isdir(name)  # noqa: PTH112  # Path's fails where a name is too long


def is_file(name: str | Path) -> bool:
    """Return whether a name is that of a file; not even the operating system's refusal of a name is an error."""
    return os.path.isfile(name)  # noqa: PTH113  # Path's fails where a name is too long


@contextmanager
def opened(file: Path) -> Iterator[BufferedReader]:
    """
    Open a regular file to read it: a pipe or a device would keep its reader waiting.

    :raises OSError: It cannot be opened.
    :raises ArtefactError: It is something else than a file.
    """
    try:
        # a pipe without a writer is opened at once
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        msg = f"{str(file)!r} is not the name of a file."
        raise ArtefactError(msg) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        msg = f"'{file}' is not a regular file."
        raise ArtefactError(msg)
    with os.fdopen(descriptor, "rb") as content:
        yield content


def read_file(file: Path, largest: int = _LARGEST_JSON) -> bytes:
    """
    Read a regular file.

    :param file: The file.
    :param largest: Maximum size in bytes.
    :raises OSError: It cannot be read.
    :raises ArtefactError: It is larger, or something else than a file.
    """
    with opened(file) as content:
        if os.fstat(content.fileno()).st_size > largest:
            msg = f"'{file}' has more than {largest:,} bytes."
            raise ArtefactError(msg)
        return content.read(largest)


def read_object(file: Path) -> dict[str, Any]:
    """
    Read a file that holds an object in JSON.

    :raises OSError: It cannot be read.
    :raises ArtefactError: It holds anything else.
    """
    return json_object(read_file(file), f"'{file}'")


def json_object(content: bytes, name: str) -> dict[str, Any]:
    """
    Parse an object in JSON; parameters are those of `parsed_json`.

    :raises ArtefactError: As `parsed_json`, or it is no object.
    """
    parsed = parsed_json(content, name)
    if not isinstance(parsed, dict):
        msg = f"{name} is not a JSON object."
        raise ArtefactError(msg)
    return parsed


def parsed_json(content: bytes, name: str) -> Any:
    """
    Parse JSON.

    :param content: The JSON, in UTF-8.
    :param name: What holds it, for messages.
    :raises ArtefactError: It is not JSON, nested too deeply, or would take a quarter of a gigabyte of memory.
    """
    objects = _OBJECT * content.count(b"{") + _LIST * content.count(b"[") + _VALUE * content.count(b",")
    if objects + len(content) > _LARGEST_OBJECTS:
        msg = f"{name} has too many values."
        raise ArtefactError(msg)
    try:
        return json.loads(content)
    except ValueError as error:
        msg = f"{name} is not JSON: {one_line(error)}"
        raise ArtefactError(msg) from error
    except RecursionError as error:
        msg = f"{name} is nested too deeply."
        raise ArtefactError(msg) from error


@dataclass(frozen=True)
class StoredArray:
    """
    An array in a file.

    :param dtype: Its type, as safetensors name it.
    :param shape: Its shape.
    :param start: Position of its first byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def is_float(self) -> bool:
        """Whether it is of floats that are read."""
        return self.dtype in _NUMPY and self.dtype != "U8"


@dataclass(frozen=True)
class ArrayFile:
    """
    A file in safetensors format: 8 bytes of length, a header in JSON, and the arrays' bytes.

    Its header has been checked: each array is as large as its shape and type say, and they fill the file without gaps.

    :param file: The file.
    :param arrays: Its arrays by their names.
    """

    file: Path
    arrays: Mapping[str, StoredArray]

    @classmethod
    def open(cls, file: Path) -> "ArrayFile":
        """
        Read the header of a file.

        :raises OSError: It cannot be read.
        :raises ArtefactError: It is not in safetensors format, or damaged.
        """
        with opened(file) as content:
            size = os.fstat(content.fileno()).st_size
            length = int.from_bytes(content.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
                msg = f"'{file}' is not a safetensors file, or it is cut off."
                raise ArtefactError(msg)
            header = json_object(content.read(length), f"The header of '{file}'")
        header.pop("__metadata__", None)
        spans: list[tuple[int, int]] = []
        arrays: dict[str, StoredArray] = {}
        for name, entry in header.items():
            dtype, shape, (first, last) = _entry(entry, f"The header of '{file}'")
            spans.append((first, last))
            if dtype in _BITS and (last - first) * 8 != math.prod(shape) * _BITS[dtype]:
                msg = f"The header of '{file}' gives an array another size than its shape."
                raise ArtefactError(msg)
            arrays[name] = StoredArray(dtype, shape, 8 + length + first)
        end = 0
        for first, last in sorted(spans):
            if first != end or last < first:
                msg = f"The header of '{file}' has arrays that overlap, or gaps between them."
                raise ArtefactError(msg)
            end = last
        if end != size - 8 - length:
            msg = f"'{file}' is cut off, or has other bytes than its header says: it ends after {size:,} bytes."
            raise ArtefactError(msg)
        return cls(file, arrays)

    def read(self, name: str) -> NDArray[Any]:
        """
        Read an array; errors are those of `read_rows`.

        :raises OSError: As `read_rows`.
        :raises ArtefactError: As `read_rows`.
        """
        array = self.arrays[name]
        return self._read(name, array.start, array.shape)

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """
        Read rows of an array, not by mapping them into memory, where the file's pages would count as the process's.

        :param name: Name of the array, which has an axis.
        :param start: First row.
        :param stop: Row after the last.
        :returns: An array of its own type; of bfloat16, which numpy has not, as float32.
        :raises OSError: The file cannot be read.
        :raises ArtefactError: The file is cut off, or the array is of a type that is not read, or not finite.
        """
        array = self.arrays[name]
        row = math.prod(array.shape[1:]) * _BITS.get(array.dtype, 0) // 8
        return self._read(name, array.start + start * row, (stop - start, *array.shape[1:]))

    def _read(self, name: str, first: int, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype = self.arrays[name].dtype
        problem = f"The array '{name}' in '{self.file}'"
        if dtype not in _NUMPY:
            msg = f"{problem} is of the type {dtype}, which is not read."
            raise ArtefactError(msg)
        count = math.prod(shape)
        with opened(self.file) as content:
            content.seek(first)
            array: NDArray[Any] = np.fromfile(content, _NUMPY[dtype], count)
        if len(array) < count:
            msg = f"{problem} is cut off: get the file again."
            raise ArtefactError(msg)
        if not _is_finite(array, dtype):
            msg = f"{problem} has values that are not finite."
            raise ArtefactError(msg)
        if dtype == "BF16":  # the upper half of a float32
            array = np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
        return array.reshape(shape)


def _is_finite(array: NDArray[Any], dtype: str) -> bool:
    if dtype in _EXPONENTS:  # numpy takes three times as long for float16, which it widens
        exponent = _EXPONENTS[dtype]
        return bool(((array.view("<u2") & exponent) != exponent).all())
    return bool(np.isfinite(array).all())


def _entry(entry: object, name: str) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Return type, shape and place of an array, from its entry in a header."""
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, place = values.get("dtype"), values.get("shape"), values.get("data_offsets")
    if not (isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(place) and len(place) == 2):
        msg = f"{name} does not say of each array what it is."
        raise ArtefactError(msg)
    return dtype, tuple(shape), (place[0], place[1])


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether a value is a list of sizes, so few that their product is a number of some digits."""
    return (
        isinstance(value, list)
        and len(value) <= _MOST_AXES
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def read_npy(file: Path) -> NDArray[Any]:
    """
    Read an array in .npy format.

    :raises OSError: It cannot be read.
    :raises ArtefactError: It is not such an array, or shorter than it says.
    """
    with opened(file):
        pass
    try:
        # the map of a file that is shorter than its header says fails before anything is allocated
        with np.errstate(over="ignore"):
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of many types, by what is wrong with the header
        msg = f"'{file}' is not an array of numbers in .npy format, or is cut off."
        raise ArtefactError(msg) from error
    if not isinstance(mapped, np.ndarray):
        msg = f"'{file}' is an archive: save the one array of embeddings in .npy format."
        raise ArtefactError(msg)
    return np.array(mapped)


def one_line(error: BaseException | str, longest: int = _LONGEST_QUOTE) -> str:
    """
    Return the message of an error, or another text, in one line that can be written anywhere.

    :param error: The error; if it has no message, that is its type.
    :param longest: Number of characters after which it is cut off.
    """
    whole = str(error).encode(errors="backslashreplace").decode()  # without halves of surrogate pairs
    said = " ".join(whole.split()) or type(error).__name__
    return said if len(said) <= longest else f"{said[:longest]} ..."
