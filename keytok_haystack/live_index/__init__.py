# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Indices that exist: key tokens for their documents, without embedding them again.

Needs the extra `opensearch` or `elasticsearch`.
"""

from keytok_haystack.live_index.backfill import Fields, Report, Trial, backfill, drop, sample, trial
from keytok_haystack.live_index.mappings import create_index
from keytok_haystack.live_index.rewrite import Failure

__all__ = ["Failure", "Fields", "Report", "Trial", "backfill", "create_index", "drop", "sample", "trial"]
