# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Indices of OpenSearch and Elasticsearch that exist: key tokens for their documents, without embedding them again.

Needs the extra `opensearch` or `elasticsearch`.
"""

from keytok_haystack.indices.backfill import Fields, Report, Trial, backfill, drop, sample, trial
from keytok_haystack.indices.connection import Connection, connected, document_store
from keytok_haystack.indices.documents import Failure
from keytok_haystack.indices.mapping import create_index

__all__ = [
    "Connection",
    "Failure",
    "Fields",
    "Report",
    "Trial",
    "backfill",
    "connected",
    "create_index",
    "document_store",
    "drop",
    "sample",
    "trial",
]
