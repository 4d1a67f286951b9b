# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Looking into an embedder, from texts to a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.decoders import fit
from keytok_haystack.encoders import CachedEmbedder, head_of
from keytok_haystack.evaluation.alignment.analysis import analyze
from keytok_haystack.evaluation.alignment.report import AlignmentReport
from keytok_haystack.evaluation.alignment.subject import Subject
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.report import embedder_name
from keytok_haystack.evaluation.texts import USUAL_FIELDS, TextFields, read_texts
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.sampling import evenly_spaced_rows

_N_INSTRUCTED = 3


def align(
    embedder: str,
    data: Collection | str | Path,
    *,
    fields: TextFields = USUAL_FIELDS,
    split: str | None = None,
    head: KeyTokenModel | str | Path | None = None,
    backbone: str | None = None,
    instructions: Sequence[str] = (),
    pair: tuple[str, str] | None = None,
    max_texts: int = 2000,
    max_tokens: int | None = None,
    progress_bar: bool = False,
) -> AlignmentReport:
    """
    Look into an embedder's embeddings of texts: their alignment with tokens, components, and the effect of adjustments.

    Retrieval is measured if the texts come with judged queries.

    :param embedder: Embedding model, as for `CachedEmbedder`.
    :param data: Test collection, or the path of a folder or file, as for `read_texts`.
    :param fields: Fields with the texts; if they are named, judgements are not read.
    :param split: Split of the judgements in the folder; by default "test", if the folder has it.
    :param head: Model that decodes the embeddings, or the path of a key-token model or a checkpoint; by default the
        embedder's own head or, if it has none, a decoder that is fitted to the embeddings of the texts.
    :param backbone: Embedding model that the embedder was trained from, to show what training has changed.
    :param instructions: Instructions under which key tokens of a few texts are compared.
    :param pair: Two texts whose similarity is explained; by default pairs of similar texts are chosen from the data.
    :param max_texts: Maximum number of texts. If there are more, an evenly spaced sample is used, and retrieval is not
        measured.
    :param max_tokens: Maximum length of a language model's input in tokens; by default that of its preset.
    :param progress_bar: Whether to show progress bars.
    :raises CheckpointError: The head cannot be read.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the head.
    :raises ValueError: Something cannot be read or embedded, no text has a token that the head knows, or the texts are
        too few to fit a decoder to them.
    """
    model, ids = _heads(embedder if head is None else head)
    lacks_head = head is None and model.source == "word-embeddings"  # which read little in an encoder's embeddings
    texts, collection = _read(data, fields, split)
    if len(texts) > max_texts:
        texts, collection = [texts[row] for row in evenly_spaced_rows(len(texts), max_texts)], None
    cached = CachedEmbedder(embedder, max_tokens=max_tokens, progress_bar=progress_bar)
    instructed: dict[str, tuple[Sequence[str], NDArray[np.float32]]] = {}
    if instructions:
        samples = [texts[row] for row in evenly_spaced_rows(len(texts), _N_INSTRUCTED)]
        instructed[""] = samples, cached.embed(samples).embeddings
        for instruction in instructions:
            instructed[instruction] = samples, cached.embed(samples, "query", instruction).embeddings
    embeddings = cached.embed(texts).embeddings
    queries = None if collection is None else cached.embed(list(collection.queries.values()), "query").embeddings
    if lacks_head:
        model, ids = fit(embeddings, texts, embedder=embedder, progress_bar=progress_bar), None
    subject = Subject(
        embedder=embedder_name(embedder),
        data=data.name if isinstance(data, Collection) else Path(data).resolve().name,
        texts=texts,
        embeddings=embeddings,
        head=model,
        ids=ids,
        collection=collection,
        queries=queries,
        instructed=instructed,
        pairs=[] if pair is None else [(pair, cached.embed(pair).embeddings)],
    )
    if backbone is not None:
        cached = CachedEmbedder(backbone, max_tokens=max_tokens, progress_bar=progress_bar)
        subject = replace(subject, backbone=cached.embed(texts).embeddings)
    return analyze(subject, progress_bar=progress_bar)


def _heads(source: KeyTokenModel | str | Path) -> tuple[KeyTokenModel, KeyTokenModel | None]:
    """Return a head by features, and id by id, unless it is a key-token model's, which has features alone."""
    if isinstance(source, KeyTokenModel):
        return source, None
    if (Path(source) / "decoder.safetensors").is_file():
        return KeyTokenModel.load(source), None
    return head_of(str(source)), head_of(str(source), fold=False)


def _read(data: Collection | str | Path, fields: TextFields, split: str | None) -> tuple[list[str], Collection | None]:
    """Return texts, and their test collection if there are judgements."""
    if fields != USUAL_FIELDS and (isinstance(data, Collection) or split is not None):
        msg = "Fields are named for texts alone: those of a test collection are known, so leave them out, or the split."
        raise ValueError(msg)
    if not isinstance(data, Collection):
        if fields != USUAL_FIELDS or (split is None and not (Path(data) / "qrels" / "test.tsv").is_file()):
            return read_texts(data, fields), None
        data = Collection.load(data, split or "test")
    return list(data.documents.values()), data
