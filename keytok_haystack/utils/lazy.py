# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported on first access, since their modules need extras or take seconds."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_on_access(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """
    Return the `__getattr__` of a package.

    :param package: Name of the package.
    :param modules: Modules inside the package, by the names that they define.
    """

    def getattribute(name: str) -> Any:
        if name not in modules:
            msg = f"module '{package}' has no attribute '{name}'"
            raise AttributeError(msg)
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return getattribute
