# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How well key tokens retrieve, next to the dense vectors they come from and to BM25."""

from keytok_haystack.evaluation.collection import Collection, CollectionError, read_texts

# `experiment` and `report` need the extra `eval`; reading collections does not
__all__ = ["Collection", "CollectionError", "read_texts"]
