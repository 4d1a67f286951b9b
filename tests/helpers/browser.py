# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The browser that pages are looked at with."""

import os
import shutil

import pytest


def chromium() -> str:
    """Return the path of Chromium; without it, a test is skipped, and fails on CI."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Tests of pages need Chromium: apt-get install chromium")
        pytest.skip("needs Chromium")
    return found
