# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Texts and their ids, from the records of files."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keytok_haystack.evaluation.records import CollectionError, records_of

logger = logging.getLogger(__name__)

_TITLE, _TEXTS, _IDS = "title", ("text", "content"), ("_id", "id")


@dataclass(frozen=True)
class TextFields:
    """
    Fields of records with texts and ids.

    :param text: Names of the fields that make up a text, joined by spaces in this order. Single JSON objects may lack
        some of them. By default "text", or else "content", preceded by "title" if there is one.
    :param id: Name of the field with the id. By default ids are not read where only texts are wanted; those of a test
        collection are "_id", or else "id", or else the number of the line.
    """

    text: Sequence[str] = ()
    id: str | None = None


USUAL_FIELDS = TextFields()


def read_texts(path: str | Path, fields: TextFields = USUAL_FIELDS) -> list[str]:
    """
    Read the texts of a collection: a folder in BEIR's layout, or a file.

    If an id field is named, each id must have one text; repetitions are kept, counted and warned of.

    :param path: Path of the folder or file: `.jsonl` (a JSON object per line), `.csv` or `.tsv` (the first row names
        the columns), `.txt` (a text per line), any of these compressed as `.gz`, or `.parquet` (extra `parquet`).
        Other files are read as JSON lines.
    :param fields: Fields with the texts and ids.
    :raises CollectionError: There is no such file, it has no texts or not these fields, or a line of it is malformed,
        or two texts have the same id.
    """
    return list(stream_texts(path, fields))


def stream_texts(path: str | Path, fields: TextFields = USUAL_FIELDS) -> Iterator[str]:
    """
    Yield what `read_texts` returns, without keeping it in memory.

    :param path: As for `read_texts`.
    :param fields: As for `read_texts`.
    :raises CollectionError: As `read_texts` does.
    """
    read = False
    for _, text in _texts(_file_of(Path(path)), fields, with_ids=fields.id is not None):
        read = True
        yield text
    if not read:
        msg = f"'{path}' holds no texts."
        raise CollectionError(msg)


def texts_by_id(path: str | Path, fields: TextFields = USUAL_FIELDS) -> dict[str, str]:
    """
    Return texts by their ids, in the order of the file.

    :param path: As for `read_texts`.
    :param fields: As for `read_texts`.
    :raises CollectionError: As `read_texts` does, except that there may be no texts.
    """
    return dict(_texts(_file_of(Path(path)), fields, with_ids=True))


def _file_of(path: Path) -> Path:
    """Return the file with the texts: of a folder, its corpus."""
    return jsonl_of(path, "corpus") if path.is_dir() else path


def jsonl_of(folder: Path, name: str) -> Path:
    """Return the path of a JSONL file in a folder; of the compressed one if there is only that."""
    file, compressed = folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"
    return compressed if compressed.exists() and not file.exists() else file


def _texts(file: Path, fields: TextFields, *, with_ids: bool) -> Iterator[tuple[str, str]]:
    """Yield the ids of records, checked, or else empty ones, and their texts."""
    named = [*fields.text, *([] if fields.id is None else [fields.id])]
    unit, columns, numbered = records_of(file, {_TITLE, *_TEXTS, *_IDS, *named})
    if columns is not None:
        _check_columns(file, columns, named if fields.text else [*named, _text_column(file, columns)])
    ids = _Ids(file, unit, fields.id)
    never: set[str] = set(fields.text)
    record: Mapping[str, Any] = {}
    for number, record in numbered:
        text = _text_of(record, fields.text, f"{unit} {number} of '{file}'")
        yield (ids.check(number, record, text) if with_ids else ""), text
        never -= record.keys()
    if never and record:
        msg = f"No {unit.lower()} of '{file}' has a field {_listed(sorted(never))}: the last one has {_listed(record)}."
        raise CollectionError(msg)
    ids.warn()


def _text_column(file: Path, columns: Sequence[str]) -> str:
    """Return the column of a table that usually has the texts."""
    for name in _TEXTS:
        if name in columns:
            return name
    msg = f"'{file}' has no column {_listed(_TEXTS, ' or ')}, but {_listed(columns)}: choose by --text-field."
    raise CollectionError(msg)


def _check_columns(file: Path, columns: Sequence[str], names: Iterable[str]) -> None:
    """Require that each name is that of one column of a table, before its rows are read."""
    for name in names:
        if columns.count(name) != 1:
            number = "several columns" if name in columns else "no column"
            msg = f"'{file}' has {number} '{name}': its columns are {_listed(columns)}."
            raise CollectionError(msg)


def _text_of(record: Mapping[str, Any], names: Sequence[str], place: str) -> str:
    """Return the text in the named fields of a record, or else in the usual ones."""
    used = [name for name in names or _TEXTS if record.get(name) is not None]
    if not used:
        wanted = f"{_listed(names or _TEXTS, ' or ')} with a text"
        msg = f"{place} has no {wanted}, but {_listed(record) or 'nothing'}: choose by --text-field."
        raise CollectionError(msg)
    if not names:
        used = [*([_TITLE] if record.get(_TITLE) else []), used[0]]
    for name in used:
        if not isinstance(record[name], str):
            msg = f"{place} has no text in '{name}', but a value of type {type(record[name]).__name__}."
            raise CollectionError(msg)
    return " ".join(record[name] for name in used if record[name])


class _Ids:
    """Ids of a file, each with one text, of which only the hash is kept."""

    def __init__(self, file: Path, unit: str, name: str | None) -> None:
        self._file, self._unit, self._name = file, unit, name
        self._first: dict[str, tuple[int, int]] = {}
        self._repetitions = 0

    def check(self, number: int, record: Mapping[str, Any], text: str) -> str:
        """Return the id of a record."""
        names = _IDS if self._name is None else (self._name,)
        identifier = next((str(record[name]) for name in names if record.get(name) is not None), None)
        if identifier is None:
            if self._name is not None:
                msg = f"{self._unit} {number} of '{self._file}' has no id '{self._name}', but {_listed(record)}."
                raise CollectionError(msg)
            identifier = str(number)
        first, hashed = self._first.setdefault(identifier, (number, hash(text)))
        if hashed != hash(text):
            msg = f"{self._unit}s {first} and {number} of '{self._file}' have the id '{identifier}', but two texts."
            raise CollectionError(msg)
        self._repetitions += first != number
        return identifier

    def warn(self) -> None:
        """Say how many records repeat an earlier one."""
        if self._repetitions:
            repeating = f"{self._repetitions:,} {self._unit.lower()}s of '{self._file}'"
            logger.warning("%s repeat the id and the text of an earlier one.", repeating)


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    return separator.join(f"'{name}'" for name in names)
