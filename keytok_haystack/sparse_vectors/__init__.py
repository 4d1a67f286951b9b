# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Sparse vectors: rows of weights, and how engines store them in a `rank_features` field."""
