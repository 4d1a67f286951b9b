# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Errors of a training."""


class TrainingError(ValueError):
    """Training cannot begin or continue; its last complete checkpoint is kept."""


class NoTargetsError(ValueError):
    """The filters leave too few targets to learn from."""
