# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Devices of torch."""

import torch


def usable_device(name: str | None) -> torch.device:
    """
    Return a device by torch's name for it, by default a GPU if there is one.

    :raises ValueError: There is no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        msg = f"The device '{name}' cannot be used: {str(error).splitlines()[0]}"
        raise ValueError(msg) from error
