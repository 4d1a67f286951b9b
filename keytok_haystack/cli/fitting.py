# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sources import fit
from keytok_haystack.spectrum import BATCH_SIZE, Spectrum
from keytok_haystack.vocabulary import Vocabulary


def timed_fit(
    embeddings: NDArray[np.float32], texts: list[str], vocabulary: Vocabulary, *, progress_bar: bool, **options: Any
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


def _batches(embeddings: NDArray[np.float32], progress_bar: bool) -> Iterator[NDArray[np.float32]]:  # noqa: FBT001
    batches = [embeddings[start : start + BATCH_SIZE] for start in range(0, len(embeddings), BATCH_SIZE)]
    yield from tqdm(batches, desc="Fitting", disable=not progress_bar, leave=False)
