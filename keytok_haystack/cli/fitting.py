# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.decoders import fit
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
    """Fit a model."""
    return fit(embeddings, texts, vocabulary, progress_bar=progress_bar, **options)
