# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Records in files: JSON lines, CSV, TSV, plain text, any of these compressed by gzip, and Parquet."""

import csv
import gzip
import json
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from keytok_haystack.utils.extras import needs

_LONGEST = 2**26
"""Maximum number of characters of a line: a damaged or malicious file must not fill the memory."""
_BATCH = 256  # rows of a Parquet file that are decoded at a time


class CollectionError(ValueError):
    """Data that cannot be read: a file is missing, or a line of it is malformed."""


class Records(NamedTuple):
    """
    Records of a file, which are read while they are iterated over.

    :param unit: What a record is in the file: "Line" or "Row".
    :param columns: Names of the fields that all records have; None if each has its own, or there are none.
    :param numbered: Records, with the numbers of the lines or rows where they begin.
    """

    unit: str
    columns: tuple[str, ...] | None
    numbered: Iterator[tuple[int, Mapping[str, Any]]]


def records_of(file: Path, wanted: Container[str]) -> Records:
    """
    Return the records of a file: the end of its name says what it is, JSON lines if that says nothing.

    Both this function and the iteration over the records raise errors.

    :param file: The file.
    :param wanted: Names of the fields that are needed, if there are such; records may lack others.
    :raises CollectionError: There is no such file, it cannot be read, or a line of it is malformed.
    :raises MissingExtraError: It is a Parquet file, and pyarrow is not installed.
    """
    match Path(file.name.lower().removesuffix(".gz")).suffix:
        case ".csv":
            return _cells(file, ",")
        case ".tsv":
            return _cells(file, "\t")
        case ".txt":
            texts = ((number, {"text": line.rstrip("\r\n")}) for number, line in lines_of(file) if line.strip())
            return Records("Line", ("text",), texts)
        case ".parquet":
            return _parquet(file, wanted)
        case _:
            return Records("Line", None, _json_objects(file))


def lines_of(file: Path, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """
    Yield the lines of a text file in UTF-8, compressed if its name ends with ".gz", with their numbers.

    :param file: The file.
    :param newline: As for `open`.
    :raises CollectionError: There is no such file, or it is no such text.
    """
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    with _explained(file), opened(file, "rt", encoding="utf-8-sig", newline=newline) as stream:
        for number in count(1):
            line = stream.readline(_LONGEST + 1)
            if not line:
                return
            if len(line) > _LONGEST:
                msg = f"Line {number} of '{file}' is longer than {_LONGEST:,} characters: split its text."
                raise CollectionError(msg)
            if "\0" in line:
                msg = f"Line {number} of '{file}' has a NUL byte, as text has none: save the file as text in UTF-8."
                raise CollectionError(msg)
            yield number, line


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Say in one sentence why a file cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"There is no file '{file}'."
        raise CollectionError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"'{file}' is not text in UTF-8: save it in that encoding."
        raise CollectionError(msg) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"'{file}' is no gzip file, or a damaged one: {error}."
        raise CollectionError(msg) from error
    except OSError as error:
        msg = f"'{file}' cannot be read: {error}"
        raise CollectionError(msg) from error


def _json_objects(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in lines_of(file):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            msg = f"Line {number} of '{file}' is not a JSON object: each line must be one."
            raise CollectionError(msg)
        yield number, record


def _cells(file: Path, delimiter: str) -> Records:
    """Return the records of a table whose first row has the names of the columns."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))  # the limit of the whole process is 131,072 at first
    rows = _rows(file, delimiter)
    _, header = next(rows, (0, None))
    if header is None:
        return Records("Line", None, iter(()))
    return Records("Line", tuple(header), ((number, _record(file, number, header, row)) for number, row in rows))


def _rows(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # a quote that is never closed would swallow the rest of the file: `strict` makes it an error
    reader = csv.reader((line for _, line in lines_of(file, newline="")), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            msg = f"The row at line {number} of '{file}' is malformed: {error} (quotes in a quoted cell are doubled)."
            raise CollectionError(msg) from error
        if row is None:
            return
        if row:
            yield number, row


def _record(file: Path, number: int, header: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(header):
        msg = f"The row at line {number} of '{file}' has {len(row)} cells, but the first row has {len(header)}."
        raise CollectionError(msg)
    return dict(zip(header, row, strict=True))


def _parquet(file: Path, wanted: Container[str]) -> Records:
    with needs("parquet", "Reading Parquet files needs an extra"):
        from pyarrow.parquet import read_schema  # noqa: PLC0415
    with _explained_parquet(file):
        columns = tuple(read_schema(file).names)
    return Records("Row", columns, _parquet_rows(file, [name for name in columns if name in wanted]))


def _parquet_rows(file: Path, columns: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415  # an extra

    numbers = count(1)
    with _explained_parquet(file), ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(_BATCH, columns=columns):
            for row in batch.to_pylist():  # a cell without a value is empty, as in CSV
                yield next(numbers), {name: "" if value is None else value for name, value in row.items()}


@contextmanager
def _explained_parquet(file: Path) -> Iterator[None]:
    from pyarrow import ArrowException  # noqa: PLC0415  # an extra

    with _explained(file):
        try:
            yield
        except ArrowException as error:
            msg = f"'{file}' is no Parquet file, or a damaged one: {error}"
            raise CollectionError(msg) from error
