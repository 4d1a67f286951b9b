# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What `keytok align` does: embed texts, read heads, and look into the embeddings."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.encoders import embed, head_of
from keytok_haystack.encoders.presets import Role
from keytok_haystack.evaluation import Collection, read_texts
from keytok_haystack.evaluation.alignment.analysis import analyze
from keytok_haystack.evaluation.alignment.page import write_page
from keytok_haystack.evaluation.alignment.report import AlignmentReport
from keytok_haystack.evaluation.alignment.subject import Subject
from keytok_haystack.evaluation.report import embedder_name
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.sampling import evenly_spaced_rows

_INSTRUCTED = 3


def align(
    embedder: str,
    data: Path,
    *,
    split: str | None,
    head: str | None,
    backbone: str | None,
    instructions: Sequence[str],
    pair: tuple[str, str] | None,
    max_texts: int,
    max_tokens: int | None,
    progress_bar: bool,
) -> AlignmentReport:
    """
    Look into the embeddings of texts.

    :param data: A folder in BEIR's layout, or a JSONL file.
    :param split: The judgements of the folder; by default "test", if it has them.
    :param head: What decodes the embeddings: a key-token model, or a checkpoint; by default the embedder's head.
    :param backbone: The embedder that the embedder was trained from.
    :param pair: Texts whose similarity is explained; by default some of the data that are near each other.
    :param max_texts: Of more texts as many are drawn, evenly, and retrieval is not measured.
    :param max_tokens: How long an input may be; by default what the embedder's preset says.
    :raises ValueError: Something cannot be read or embedded.
    """

    def embedded(
        some: Sequence[str], name: str = embedder, role: Role = "document", instruction: str | None = None
    ) -> NDArray[np.float32]:
        return embed(
            some, name, role=role, instruction=instruction, max_tokens=max_tokens, progress_bar=progress_bar
        ).embeddings

    model, ids = _heads(head or embedder)
    texts, collection = _read(data, split)
    if len(texts) > max_texts:
        texts, collection = [texts[row] for row in evenly_spaced_rows(len(texts), max_texts)], None
    samples = [texts[row] for row in evenly_spaced_rows(len(texts), _INSTRUCTED)] if instructions else []
    instructed = {
        instruction: (samples, embedded(samples, role="query", instruction=instruction)) for instruction in instructions
    }
    return analyze(
        Subject(
            embedder=embedder_name(embedder),
            data=data.resolve().name,
            texts=texts,
            embeddings=embedded(texts),
            head=model,
            ids=ids,
            collection=collection,
            queries=embedded(list(collection.queries.values()), role="query") if collection is not None else None,
            backbone=embedded(texts, backbone) if backbone is not None else None,
            instructed={"": (samples, embedded(samples)), **instructed} if instructions else {},
            pairs=[] if pair is None else [(pair, embedded(pair))],
        ),
        progress_bar=progress_bar,
    )


def write(report: AlignmentReport, html_path: Path | None, json_path: Path | None) -> None:
    """Write a report to each file that is named."""
    for path in (html_path, json_path):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if html_path is not None:
        write_page(html_path, report)
    if json_path is not None:
        json_path.write_text(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _heads(source: str) -> tuple[KeyTokenModel, KeyTokenModel | None]:
    """Return a head by features, and id by id unless it is that of a key-token model, which has features alone."""
    if (Path(source) / "decoder.safetensors").is_file():
        return KeyTokenModel.load(source), None
    return head_of(source), head_of(source, fold=False)


def _read(data: Path, split: str | None) -> tuple[list[str], Collection | None]:
    """Return the texts, and the test collection that they are, if there are judgements."""
    if split is None and not (data / "qrels" / "test.tsv").is_file():
        return read_texts(data), None
    collection = Collection.load(data, split or "test")
    return list(collection.documents.values()), collection
