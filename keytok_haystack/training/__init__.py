# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Train an embedder on texts without labels (Text2Token, arXiv 2510.10224).

`targets` says what embeddings should say, `objective` how far they are from it, and `trainer` changes the model.
"""
