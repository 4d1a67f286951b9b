# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Key tokens for indices that exist, without embedding their documents again.

`backfill` writes key tokens beside the dense vectors of an index, `dry_run` shows what it would do, and `inspect_index`
whether the index is fit for it. `drop` removes a field of key tokens, `sample` reads texts and embeddings to fit a
model to, and `create_index` makes an index or adds the field to one. Needs the extra `opensearch` or `elasticsearch`.
"""

from keytok_haystack.live_index.backfill import DryRun, backfill, dry_run
from keytok_haystack.live_index.changes import Failure, RewriteReport
from keytok_haystack.live_index.create import CreatedIndex, create_index
from keytok_haystack.live_index.drop import drop
from keytok_haystack.live_index.fields import Fields
from keytok_haystack.live_index.inspection import Inspection, inspect_index
from keytok_haystack.live_index.sample import sample

__all__ = [
    "CreatedIndex",
    "DryRun",
    "Failure",
    "Fields",
    "Inspection",
    "RewriteReport",
    "backfill",
    "create_index",
    "drop",
    "dry_run",
    "inspect_index",
    "sample",
]
