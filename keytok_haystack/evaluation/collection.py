# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Test collections in BEIR's layout, and texts in JSONL files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


class CollectionError(ValueError):
    """Data that cannot be read: a file is missing, or a line of it is malformed."""


@dataclass(frozen=True)
class Collection:
    """
    Test collection: documents, queries, and judgements of relevance.

    :param name: Name of the collection.
    :param documents: Texts by id; the title of a document, if it has one, comes before its text.
    :param queries: Texts of the judged queries by id.
    :param qrels: Judgements, `{query id: {document id: relevance}}`.
    """

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @classmethod
    def load(cls, folder: str | Path, split: str) -> Self:
        """
        Read a folder in BEIR's layout: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

        :param folder: Path of the folder, whose name becomes that of the collection.
        :param split: Split of the judgements.
        :raises CollectionError: A file is missing or malformed, or the split has no judgement of a known query.
        """
        folder = Path(folder)
        documents = dict(_texts(folder / "corpus.jsonl"))
        queries = dict(_texts(folder / "queries.jsonl"))
        qrels = _qrels(folder / "qrels" / f"{split}.tsv")
        if not documents:
            msg = f"'{folder / 'corpus.jsonl'}' holds no documents."
            raise CollectionError(msg)
        judged = {identifier: text for identifier, text in queries.items() if identifier in qrels}
        if not judged:
            msg = f"None of the queries in '{folder}' is judged in the split '{split}'."
            raise CollectionError(msg)
        return cls(folder.resolve().name, documents, judged, {identifier: qrels[identifier] for identifier in judged})


def read_texts(path: str | Path) -> list[str]:
    """
    Read the texts of a collection: a folder in BEIR's layout, or a JSONL file.

    The text of a line is its "text" or "content", preceded by its "title" if it has one.

    :param path: Path of the folder or file.
    :raises CollectionError: There is no such file, it holds no texts, or a line of it is malformed.
    """
    path = Path(path)
    texts = [text for _, text in _texts(path / "corpus.jsonl" if path.is_dir() else path)]
    if not texts:
        msg = f"'{path}' holds no texts."
        raise CollectionError(msg)
    return texts


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in _lines(file):
        try:
            record: Any = json.loads(line)
            text = record["text"] if record.get("text") is not None else record["content"]
            if not isinstance(text, str):
                raise TypeError  # noqa: TRY301  # reported with the number of the line below
            identifier = str(record.get("_id", number))
            parts = [part for part in (record.get("title"), text) if part]
            yield identifier, " ".join(parts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f'Line {number} of \'{file}\' is not a JSON object with a string "text" or "content".'
            raise CollectionError(msg) from error


def _qrels(file: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(file):
        row = line.rstrip("\r\n").split("\t")
        if number == 1 and not (len(row) == 3 and row[2].lstrip("-").isdigit()):
            continue  # the header
        try:
            query, document, relevance = row
            qrels.setdefault(query, {})[document] = int(relevance)
        except ValueError as error:
            msg = f"Line {number} of '{file}' is not a query id, a document id and a number, separated by tabs."
            raise CollectionError(msg) from error
    return qrels


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without blank ones."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    except FileNotFoundError as error:
        msg = f"There is no file '{file}'."
        raise CollectionError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"'{file}' cannot be read: {error}"
        raise CollectionError(msg) from error
