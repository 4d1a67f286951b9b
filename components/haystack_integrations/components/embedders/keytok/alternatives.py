# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Inputs of a component that are alternatives, of which a pipeline may connect some."""

from typing import Any


def is_branch_not_taken(component: Any, *alternatives: str) -> bool:
    """
    Return whether a component runs in a pipeline although the branch that it belongs to was not taken.

    Haystack runs a component whose inputs are all optional if it gets any of them, such as a text that the user passes,
    even if a router has sent what is connected elsewhere. Then it has nothing to return, as a component that does not
    run.

    :param component: Component that has got none of its alternatives.
    :param alternatives: Names of the inputs of which it needs one.
    """
    return any(component.__haystack_input__.get(name).senders for name in alternatives)
