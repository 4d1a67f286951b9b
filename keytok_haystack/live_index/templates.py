# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Index templates: what the next index behind an alias or a data stream will be like."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from keytok_haystack.engines import MappingError
from keytok_haystack.engines.connection import Connection
from keytok_haystack.engines.mapping import has_field
from keytok_haystack.live_index.mappings import planned_changes

Kind = Literal["index", "alias", "data stream"]
"""What can have a name."""
_ROLLOVER_ALIASES = ("index.lifecycle.rollover_alias", "index.plugins.index_state_management.rollover_alias")
_TIMES = ("created_date", "modified_date")  # which Elasticsearch adds to a template


def kind_of(name: str, described: Mapping[str, Any]) -> Kind:
    """
    Return what has a name.

    :param name: The name.
    :param described: Description of the indices behind it, as the engine returns it.
    """
    if any(index.get("data_stream") == name for index in described.values()):
        return "data stream"
    return "index" if name in described else "alias"


def warning_of_next(
    connection: Connection, described: Mapping[str, Any], field: str, *, wanted: bool = True
) -> str | None:
    """
    Return a warning if the next index, of an alias or a data stream, will not be as the present ones.

    :param connection: Connection to the index.
    :param described: Description of the indices behind its name, as the engine returns it.
    :param field: Field of the key tokens.
    :param wanted: Whether the next index is to have the field.
    """
    name = _next_name(connection.index, described)
    if name is None:
        return None
    with connection.server.tolerating_refusals():
        template = _template_of(connection, name, described)
        is_there = template is not None and has_field(_simulated(connection, template[0]), field)
        if is_there == wanted:
            return None
        if is_there:
            return f"The next index of '{connection.index}' ('{name}') will still have the field '{field}'."
        remedy = (
            "no index template makes it, so give it one"
            if template is None
            else f"`keytok mapping --template` puts it into the index template '{template[0]}'"
        )
        return f"The next index of '{connection.index}' ('{name}') will have no field '{field}': {remedy}."
    return f"These credentials may not see whether the next index of '{connection.index}' has the field '{field}'."


def extend_template(
    connection: Connection,
    described: Mapping[str, Any],
    definition: Mapping[str, Any],
    field: str,
    fingerprint: str,
) -> str:
    """
    Put a field of key tokens into the index template that makes the next index, and return the template's name.

    :param connection: Connection to an alias or a data stream.
    :param described: Description of the indices behind its name, as the engine returns it.
    :param definition: Definition of an index with the field (`index_definition`).
    :param field: Field of the key tokens.
    :param fingerprint: Fingerprint of the model of the key tokens.
    :raises MappingError: No index template makes a next index, or it has the field, of another type or for another
        model.
    """
    name = _next_name(connection.index, described)
    template = None if name is None else _template_of(connection, name, described)
    if template is None:
        msg = (
            f"No index template makes a next index of '{connection.index}': --template is for a data stream, or an "
            "alias with a write index."
        )
        raise MappingError(msg)
    key, body = template
    change = planned_changes({key: _simulated(connection, key)}, definition, field, fingerprint).get(key)
    if change is None:
        return key
    mappings = body.setdefault("template", {}).setdefault("mappings", {})
    mappings["properties"] = {**mappings.get("properties", {}), **change.get("properties", {})}
    mappings["_meta"] = change["_meta"]
    body = {part: value for part, value in body.items() if not part.startswith(_TIMES)}
    connection.client.indices.put_index_template(name=key, body=body)
    return key


def _simulated(connection: Connection, name: str) -> dict[str, Any]:
    """Return the mappings that an index template gives, with those of its component templates."""
    template = connection.client.indices.simulate_template(name=name).get("template", {})
    return dict(template.get("mappings", {}))


def _next_name(name: str, described: Mapping[str, Any]) -> str | None:
    """Return the name of the index that the next rollover creates, or of its data stream; None if there is none."""
    kind = kind_of(name, described)
    if kind != "alias":
        return name if kind == "data stream" else None
    writes = [
        key
        for key, index in described.items()
        if index["aliases"].get(name, {}).get("is_write_index")
        or any(index["settings"].get(setting) == name for setting in _ROLLOVER_ALIASES)
    ]
    numbered = re.fullmatch(r"(.*-)(\d+)", max(writes, default=""))
    return None if numbered is None else f"{numbered[1]}{int(numbered[2]) + 1:06}"


def _template_of(connection: Connection, name: str, described: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the content of the index template that makes the next index: the first that matches."""
    is_data_stream = kind_of(connection.index, described) == "data stream"
    templates = connection.client.indices.get_index_template()["index_templates"]
    matching = [
        (each["index_template"].get("priority", 0), each["name"], each["index_template"])
        for each in templates
        if ("data_stream" in each["index_template"]) == is_data_stream
        and any(fnmatchcase(name, pattern) for pattern in _patterns(each["index_template"]))
    ]
    if not matching:
        return None
    _, key, body = max(matching, key=lambda each: each[0])
    return key, dict(body)


def _patterns(template: Mapping[str, Any]) -> list[str]:
    patterns = template["index_patterns"]
    return [patterns] if isinstance(patterns, str) else list(patterns)
