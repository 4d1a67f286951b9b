# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Single tensors and the tokenizer of a Hugging Face checkpoint, read without loading the model."""

from keytok_haystack.decoders.checkpoints.checkpoint import Checkpoint
from keytok_haystack.decoders.checkpoints.tensors import CheckpointError, Tensor

__all__ = ["Checkpoint", "CheckpointError", "Tensor"]
