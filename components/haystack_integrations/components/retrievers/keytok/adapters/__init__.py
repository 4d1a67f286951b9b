# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Adapters by which SparseRetriever searches document stores: one module for each kind of store."""

from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SparseQuery,
    StoreAdapter,
    adapter_for,
    store_retrievers,
)

__all__ = ["SparseQuery", "StoreAdapter", "adapter_for", "store_retrievers"]
