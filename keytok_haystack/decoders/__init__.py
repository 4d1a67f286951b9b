# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Where decoders come from: fitted to a corpus, or read from a checkpoint."""

from keytok_haystack.decoders.calibration import calibrate
from keytok_haystack.decoders.fit import REGULARIZATION, fit
from keytok_haystack.decoders.heads import from_language_model, from_masked_lm, from_word_embeddings

__all__ = [
    "REGULARIZATION",
    "calibrate",
    "fit",
    "from_language_model",
    "from_masked_lm",
    "from_word_embeddings",
]
