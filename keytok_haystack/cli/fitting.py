# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from tqdm import tqdm

from keytok_haystack.alignment import Alignment, alignment, tokens_kept
from keytok_haystack.decoders import calibrate, fit
from keytok_haystack.embedding_space import BATCH_SIZE, Spectrum, embed_filter
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.vocabulary import Vocabulary


def timed_fit(
    embeddings: NDArray[np.float32],
    texts: list[str],
    vocabulary: Vocabulary,
    *,
    progress_bar: bool,
    **options: Any,
) -> KeyTokenModel:
    """
    Fit a model as all commands do: the first principal component removed, progress shown, the time kept in the model.

    :param embeddings: Shape `(n, d)`.
    :param texts: The `n` texts.
    :param vocabulary: The features to fit.
    :param progress_bar: Whether to show a progress bar.
    :param options: Further options of `fit`.
    """
    started = time.perf_counter()
    spectrum = Spectrum.from_embeddings(embeddings)
    model = fit(_batches(embeddings, progress_bar), texts, vocabulary, spectrum=spectrum, **options)
    return replace(model, fit_seconds=time.perf_counter() - started)


def timed_calibration(
    head: KeyTokenModel,
    embeddings: NDArray[np.float32],
    texts: list[str],
    keep: float | None = None,
    *,
    embedder: str | None,
) -> KeyTokenModel:
    """
    Complete a model that was read from a checkpoint (`calibrate`), and keep the time that took in the model.

    :param embeddings: Shape `(n, d)`.
    :param texts: The `n` texts.
    :param keep: The share of the head's spectrum that is kept (`embed_filter`); None keeps it whole.
    :param embedder: The name of the embedding model.
    :raises ValueError: `keep` is not between 0 and 1, or the head is not linear.
    """
    started = time.perf_counter()
    preparation = None
    if keep is not None:
        if head.decoder.preparation.transform is not None:
            msg = "A masked-language-model head transforms embeddings before its matrix: its spectrum is not theirs."
            raise ValueError(msg)
        removal = Spectrum.from_embeddings(embeddings).removal()
        preparation = embed_filter(head.decoder.weight, keep, removal)
    model = calibrate(head, embeddings, texts, preparation=preparation, embedder=embedder)
    return replace(model, fit_seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class Changes:
    """
    Whether a refined decoder's tokens still mean what they meant.

    :param tokens_kept: The share of texts' top 10 aligned tokens that are still among them.
    :param before: The alignment of embeddings with their texts, by the decoder as it was.
    :param after: The same, by the refined decoder.
    """

    tokens_kept: float
    before: Alignment
    after: Alignment

    @classmethod
    def measure(
        cls, before: KeyTokenModel, after: KeyTokenModel, embeddings: NDArray[np.float32], texts: list[str]
    ) -> Self:
        """Compare two models of the same features on at most 1,000 texts, evenly drawn; embeddings `(n, d)`."""
        rows = np.unique(np.linspace(0, len(texts) - 1, 1000).astype(int))
        chosen, own = embeddings[rows], [texts[row] for row in rows]
        return cls(
            tokens_kept(before.decoder, after.decoder, chosen),
            *(alignment(model.decoder, model.vocabulary, chosen, own) for model in (before, after)),
        )

    def table(self) -> Table:
        """Return the comparison as a table for the terminal."""
        table = Table("", "fitted", "refined", box=None, header_style="dim", padding=(0, 2))
        table.add_row("top-10 tokens kept", "", f"{self.tokens_kept:.0%}")
        for label, name in (
            ("own tokens rank above others (AUC)", "literal_auc"),
            ("texts with an own token in their top 10 (Hit@10)", "hit_at_k"),
            ("local alignment rate", "local_alignment_rate"),
            ("global alignment rate", "global_alignment_rate"),
        ):
            table.add_row(label, f"{getattr(self.before, name):.3f}", f"{getattr(self.after, name):.3f}")
        return table


def _batches(embeddings: NDArray[np.float32], progress_bar: bool) -> Iterator[NDArray[np.float32]]:  # noqa: FBT001
    batches = [embeddings[start : start + BATCH_SIZE] for start in range(0, len(embeddings), BATCH_SIZE)]
    yield from tqdm(batches, desc="Fitting", disable=not progress_bar, leave=False)
