# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Where decoders come from: fitted to a corpus, or read from a checkpoint."""

from keytok_haystack.sources.fit import REGULARIZATION, fit
from keytok_haystack.sources.language_model import calibrate, from_language_model, from_masked_lm, from_word_embeddings
from keytok_haystack.sources.tensors import CheckpointError

__all__ = [
    "REGULARIZATION",
    "CheckpointError",
    "calibrate",
    "fit",
    "from_language_model",
    "from_masked_lm",
    "from_word_embeddings",
]
