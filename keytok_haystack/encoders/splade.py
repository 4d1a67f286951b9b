# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""SPLADE through sentence-transformers: texts as sparse vectors that a masked language model is trained to give."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from keytok_haystack.encoders.foreign_code import check_without_code
from keytok_haystack.encoders.progress import without_progress_bars
from keytok_haystack.utils.artefacts import one_line
from keytok_haystack.utils.extras import needs

_BATCH_SIZE = 8  # the logits of 8 texts of 512 tokens over 30,522 tokens take half a gigabyte


@dataclass(frozen=True, eq=False)
class SpladeVectors:
    """
    Sparse vectors of documents and queries.

    :param encoder: Hub id or path of the encoder.
    :param documents: Shape `(n, V)`.
    :param queries: Shape `(queries, V)`.
    :param seconds: Time that encoding the documents took.
    """

    encoder: str
    documents: csr_array
    queries: csr_array
    seconds: float


class SpladeEncoder:
    """
    A SPLADE, or another sparse encoder of sentence-transformers whose dimensions are tokens.

    :param encoder: Hub id or path. A folder without `modules.json` is read as a masked language model, whose logits
        become weights by their maximum over the text, as in SPLADE-v2.
    :raises ValueError: It cannot be loaded, or its dimensions are not tokens.
    :raises ModuleNotFoundError: sentence-transformers is not installed.
    """

    def __init__(self, encoder: str | Path) -> None:
        self._name = str(encoder)
        with needs("sentence-transformers", f"The SPLADE '{encoder}' needs an extra"):
            from sentence_transformers import SparseEncoder  # noqa: PLC0415  # seconds to import
            from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder  # noqa: PLC0415
        check_without_code(self._name)
        try:
            with without_progress_bars(), _without_warnings():
                self._model = SparseEncoder(self._name, trust_remote_code=False)
        except Exception as error:  # broken files raise a dozen types of errors
            msg = f"'{encoder}' is not a sparse encoder that sentence-transformers can load: {one_line(error)}"
            raise ValueError(msg) from error
        # to any other embedder sentence-transformers adds an autoencoder, which nobody has trained
        if any(isinstance(module, SparseAutoEncoder) for module in self._model.modules()):
            msg = f"'{encoder}' does not encode texts to weights of tokens: name a SPLADE, a masked language model."
            raise ValueError(msg)

    def encode(self, documents: Sequence[str], queries: Sequence[str], *, progress_bar: bool = True) -> SpladeVectors:
        """
        Encode documents and queries, each with its prompt or part of the encoder, if there are such.

        :param documents: Texts of the documents.
        :param queries: Texts of the queries.
        :param progress_bar: Whether to show progress bars.
        """

        def rows(encode: Callable[..., Any], texts: Sequence[str]) -> csr_array:
            vectors = encode(list(texts), batch_size=_BATCH_SIZE, save_to_cpu=True, show_progress_bar=progress_bar)
            vectors = vectors.coalesce()
            places = vectors.indices().numpy().astype(np.int32)
            return csr_array((vectors.values().numpy().astype(np.float32), tuple(places)), shape=tuple(vectors.shape))

        started = time.perf_counter()
        encoded = rows(self._model.encode_document, documents)
        seconds = time.perf_counter() - started
        return SpladeVectors(self._name, encoded, rows(self._model.encode_query, queries), seconds)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide the warning that sentence-transformers gives when it makes a sparse encoder of another model."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
