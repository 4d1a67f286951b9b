# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What embeddings say in tokens: their alignment, principal components, and the effect of adjusting them."""
