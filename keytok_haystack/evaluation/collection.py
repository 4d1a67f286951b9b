# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Test collections in BEIR's layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from keytok_haystack.evaluation.records import CollectionError, lines_of
from keytok_haystack.evaluation.texts import jsonl_of, texts_by_id


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

        The first two may be compressed, as `.jsonl.gz`. Ids are "_id", or else "id".

        :param folder: Path of the folder, whose name becomes that of the collection.
        :param split: Split of the judgements.
        :raises CollectionError: A file is missing or malformed, two texts have the same id, or the split has no
            judgement of a known query.
        """
        folder = Path(folder)
        corpus = jsonl_of(folder, "corpus")
        documents, queries = texts_by_id(corpus), texts_by_id(jsonl_of(folder, "queries"))
        qrels = _qrels(folder / "qrels" / f"{split}.tsv")
        if not documents:
            msg = f"'{corpus}' holds no documents."
            raise CollectionError(msg)
        judged = {identifier: text for identifier, text in queries.items() if identifier in qrels}
        if not judged:
            msg = f"None of the queries in '{folder}' is judged in the split '{split}'."
            raise CollectionError(msg)
        return cls(folder.resolve().name, documents, judged, {identifier: qrels[identifier] for identifier in judged})


def _qrels(file: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in lines_of(file):
        if not line.strip():
            continue
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
