# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of key tokens, from a test collection to a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keytok_haystack.decoders import calibrate, fit
from keytok_haystack.decoders import refine as refine_model
from keytok_haystack.decoders.checkpoints import CheckpointError
from keytok_haystack.encoders import CachedEmbedder, Embedded, head_of
from keytok_haystack.encoders.splade import SpladeEncoder
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.evaluation.experiment import measure_systems
from keytok_haystack.evaluation.report import EvaluationReport
from keytok_haystack.evaluation.texts import read_texts
from keytok_haystack.model import KeyTokenModel, loaded_model
from keytok_haystack.utils.checks import check_embeddings, check_same_number
from keytok_haystack.utils.sampling import random_rows


def evaluate(
    collection: Collection | str | Path,
    *,
    split: str = "test",
    embedder: str | None = None,
    model: KeyTokenModel | str | Path | None = None,
    language: str | None = None,
    embeddings: ArrayLike | None = None,
    query_embeddings: ArrayLike | None = None,
    others: Sequence[str | Path] = (),
    splade: str | Path | None = None,
    refine: bool = False,
    seed: int = 0,
    max_tokens: int | None = None,
    progress_bar: bool = False,
) -> EvaluationReport:
    """
    Measure key tokens next to the dense vectors and BM25 on a test collection.

    Without a model, one is fitted to all documents of the collection, and for comparison others to a random half of
    them and to other collections. The embedder's own head is measured, too, if it has one that can be read.

    :param collection: Test collection, or the path of its folder in BEIR's layout.
    :param split: Split of the judgements: `qrels/SPLIT.tsv` in the folder, and its name in the report.
    :param embedder: Embedding model, as for `CachedEmbedder`; by default that of the model.
    :param model: Key-token model to measure, or the path of its folder.
    :param language: Language of the texts, as for `fit`; by default it is found from them.
    :param embeddings: Ready-made embeddings of the documents, shape `(n, d)`.
    :param query_embeddings: Ready-made embeddings of the judged queries, shape `(queries, d)`.
    :param others: Other collections to fit models to: folders or files, as for `read_texts`.
    :param splade: SPLADE to compare with, as for `SpladeEncoder`.
    :param refine: Whether to refine the model that is fitted to all documents, and measure that, too.
    :param seed: Seed of the random half, and of the order in which refinement reads texts.
    :param max_tokens: Maximum length of a language model's input in tokens; by default that of its preset.
    :param progress_bar: Whether to show progress bars.
    :raises ValueError: Options contradict each other, the embedder is not known, or something cannot be read or
        embedded.
    :raises EmbeddingError: The embeddings are unusable, or of another dimension than the model.
    """
    if model is not None and (language is not None or refine or others):
        msg = (
            "A given model is not fitted, so that a language, refinement and other collections do not apply: leave "
            "them out, or the model."
        )
        raise ValueError(msg)
    given = None if model is None else loaded_model(model)
    if given is not None:
        embedder = embedder or given.embedder
    if not isinstance(collection, Collection):
        collection = Collection.load(collection, split)
    cached = None if embedder is None else CachedEmbedder(embedder, max_tokens=max_tokens, progress_bar=progress_bar)
    splade_encoder = None if splade is None else SpladeEncoder(splade)  # refused at once, if at all
    documents, queries = _embedded(collection, embeddings, query_embeddings, cached)
    texts = list(collection.documents.values())
    if given is not None:
        models = _Models(given, "given model")
    else:
        other_texts = _embedded_others(others, cached)
        models = _fit_models(
            documents.embeddings, texts, language, other_texts, embedder, seed, progress_bar=progress_bar
        )
        if refine:
            refined = refine_model(models.model, documents.embeddings, texts, seed=seed, progress_bar=progress_bar)
            models = replace(models, refined=refined)
    return measure_systems(
        collection,
        split,
        models.model,
        documents,
        queries,
        fitted_on=models.fitted_on,
        decoders=_heads(embedder, documents.embeddings, texts),
        refined=models.refined,
        out_of_sample=models.out_of_sample,
        splade=None
        if splade_encoder is None
        else splade_encoder.encode(texts, list(collection.queries.values()), progress_bar=progress_bar),
        sweep=True,
        progress_bar=progress_bar,
    )


@dataclass(frozen=True)
class _Models:
    """Models to measure, as `measure_systems` takes them."""

    model: KeyTokenModel
    fitted_on: str
    refined: KeyTokenModel | None = None
    out_of_sample: Mapping[str, KeyTokenModel] = field(default_factory=dict)


def _embedded(
    collection: Collection,
    embeddings: ArrayLike | None,
    query_embeddings: ArrayLike | None,
    embedder: CachedEmbedder | None,
) -> tuple[Embedded, Embedded]:
    """Return the embeddings of a collection's documents and queries: ready-made ones, or else new ones."""
    texts, query_texts = list(collection.documents.values()), list(collection.queries.values())
    if embeddings is not None and query_embeddings is not None:
        documents, queries = check_embeddings(embeddings), check_embeddings(query_embeddings)
        check_same_number(len(documents), len(texts))
        check_same_number(len(queries), len(query_texts))
        return Embedded(documents), Embedded(queries)
    if embeddings is not None or query_embeddings is not None:
        msg = "Ready-made embeddings are needed for both documents and queries."
        raise ValueError(msg)
    if embedder is None:
        msg = "No embedder is known: name an embedder, or a model that names its own, or give ready-made embeddings."
        raise ValueError(msg)
    return embedder.embed(texts), embedder.embed(query_texts, "query")


def _embedded_others(
    paths: Sequence[str | Path], embedder: CachedEmbedder | None
) -> dict[str, tuple[NDArray[np.float32], list[str]]]:
    """Return the embeddings and texts of other collections by the names of their folders or files."""
    if paths and embedder is None:
        msg = "Other collections need an embedder for their texts."
        raise ValueError(msg)
    texts: dict[str, list[str]] = {}
    for path in map(Path, paths):
        name = path.resolve().name if path.is_dir() else path.stem
        if name in texts:
            msg = f"Two of the other collections are called '{name}': rename one, so that the report can name both."
            raise ValueError(msg)
        texts[name] = read_texts(path)
    return {name: (embedder.embed(each).embeddings, each) for name, each in texts.items() if embedder is not None}


def _fit_models(
    embeddings: NDArray[np.float32],
    texts: list[str],
    language: str | None,
    others: Mapping[str, tuple[NDArray[np.float32], list[str]]],
    embedder: str | None,
    seed: int,
    *,
    progress_bar: bool,
) -> _Models:
    """Fit a model to all documents, and for comparison to a random half of them and to each other collection."""

    def fitted(embeddings: NDArray[np.float32], texts: list[str]) -> KeyTokenModel:
        return fit(embeddings, texts, language=language, embedder=embedder, progress_bar=progress_bar)

    half = random_rows(len(texts), len(texts) // 2, seed)
    data = {"a random half": (embeddings[half], [texts[row] for row in half]), **others}
    return _Models(
        fitted(embeddings, texts),
        "all documents",
        out_of_sample={name: fitted(*each) for name, each in data.items()},
    )


def _heads(embedder: str | None, embeddings: NDArray[np.float32], texts: Sequence[str]) -> list[KeyTokenModel]:
    """Return the head that decodes an embedder's embeddings (`head_of`), calibrated, if there is one."""
    if embedder is None:
        return []
    try:
        head = head_of(embedder, local_files_only=True)
    except CheckpointError:
        return []
    if head.dimension != embeddings.shape[1]:
        return []  # the embedder projects token embeddings or their mean
    return [calibrate(head, embeddings, texts, embedder=embedder)]
