# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Adapters by which SparseRetriever searches document stores: one module for each kind of store."""

from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SearchQuery,
    SearchSettings,
    StoreAdapter,
    adapter_for,
)

__all__ = ["SearchQuery", "SearchSettings", "StoreAdapter", "adapter_for"]
