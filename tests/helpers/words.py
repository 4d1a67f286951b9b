# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
WORDS = ("shock", "wave", "boundary", "layer", "heat", "transfer", "wing", "lift", "flow", "speed", "3.5", "100%")
"""The words of small vocabularies and texts, among them one with a dot and one with a percent sign."""
