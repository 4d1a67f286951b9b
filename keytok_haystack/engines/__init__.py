# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Requests to OpenSearch and Elasticsearch, and their answers.

`mapping` and `request` are pure data. The other modules talk to engines and need the extra `opensearch` or
`elasticsearch`: `server` and one module for each engine, `connection` for the commands, `failures`.
"""

from typing import TYPE_CHECKING

from keytok_haystack.utils.lazy import imported_on_access

if TYPE_CHECKING:
    from keytok_haystack.engines.mapping import (
        Engine,
        FieldType,
        KeyTokenField,
        LeanIndexError,
        MappingError,
        check_field_name,
        index_definition,
        key_token_field,
    )
    from keytok_haystack.engines.request import DenseShare, required_tokens, search_request

__all__ = [
    "DenseShare",
    "Engine",
    "FieldType",
    "KeyTokenField",
    "LeanIndexError",
    "MappingError",
    "check_field_name",
    "index_definition",
    "key_token_field",
    "required_tokens",
    "search_request",
]

_MODULES = {
    "DenseShare": "request",
    "Engine": "mapping",
    "FieldType": "mapping",
    "KeyTokenField": "mapping",
    "LeanIndexError": "mapping",
    "MappingError": "mapping",
    "check_field_name": "mapping",
    "index_definition": "mapping",
    "key_token_field": "mapping",
    "required_tokens": "request",
    "search_request": "request",
}
"""Modules of the names: the help of commands asks for engines, and waits for no arrays."""

__getattr__ = imported_on_access(__name__, _MODULES)
