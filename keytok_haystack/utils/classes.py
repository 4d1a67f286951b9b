# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tables by class, whose classes are named by their paths so that they are imported only when they are used."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def entry_for(instance: object, table: Mapping[str, T]) -> T | None:
    """
    Return the entry of an instance's class, or else of the nearest class that it derives from.

    :param instance: Instance of any class.
    :param table: Entries by the paths of classes, `module.Class`.
    """
    paths = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(instance).__mro__)
    return next((table[path] for path in paths if path in table), None)
