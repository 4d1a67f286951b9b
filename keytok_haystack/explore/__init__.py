# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search that shows its reasons: rankings side by side, explained hits, and why a document is not among them."""

from keytok_haystack.explore.page import page
from keytok_haystack.explore.sources import Source, engine_source, text_source
from keytok_haystack.explore.workbench import SYSTEMS, Workbench

__all__ = ["SYSTEMS", "Source", "Workbench", "engine_source", "page", "text_source"]
