# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""An inverted index in memory: postings, BM25, and the search over both."""

from keytok_haystack.inverted_index.bm25 import BM25_B, BM25_K1, Bm25
from keytok_haystack.inverted_index.index import Hit, InvertedIndex, contributions
from keytok_haystack.inverted_index.postings import Postings
from keytok_haystack.inverted_index.standard_analyzer import standard_tokens

__all__ = ["BM25_B", "BM25_K1", "Bm25", "Hit", "InvertedIndex", "Postings", "contributions", "standard_tokens"]
