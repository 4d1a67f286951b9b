# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Running embedders, with a cache."""

from keytok_haystack.encoders.sentence_transformer import Embedded, embed

__all__ = ["Embedded", "embed"]
