# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Arbitrary filters, as Haystack documents them."""

from typing import Any

from hypothesis import strategies as st

OPERATORS = ("==", "!=", ">", ">=", "<", "<=", "in", "not in")


def any_filters(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """
    Comparisons of fields with values, nested in AND, OR and NOT.

    :param values: For each field, what to compare it with.
    """

    @st.composite
    def comparisons(draw):
        field, operator = draw(st.sampled_from(sorted(values))), draw(st.sampled_from(OPERATORS))
        value = draw(st.lists(values[field]) if "in" in operator else values[field])
        return {"field": field, "operator": operator, "value": value}

    return st.recursive(
        comparisons(),
        lambda inner: st.fixed_dictionaries(
            {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(inner, min_size=1, max_size=3)}
        ),
        max_leaves=6,
    )
