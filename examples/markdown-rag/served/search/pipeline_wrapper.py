# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search in the notes by a query that an agent can edit, as an MCP tool."""

from hayhooks import BasePipelineWrapper
from haystack import Pipeline
from run import editable_search, index


class PipelineWrapper(BasePipelineWrapper):
    """Searches the notes about lighthouses."""

    def setup(self) -> None:
        """Index the notes and load the retriever."""
        self.pipeline = Pipeline()
        self.pipeline.add_component("search", editable_search(index()))

    def run_api(
        self,
        query: str,
        boost: list[str] | None = None,
        mute: list[str] | None = None,
        require: list[str] | None = None,
        top_k: int | None = None,
    ) -> str:
        """
        Searches notes about lighthouses by meaning and by words, and tells for which words each note is found.

        :param query: What to search for, in a phrase or a sentence.
        :param boost: Words that matter most.
        :param mute: Words to leave out of the query: tokens of the query, as the answer lists them, that lead to wrong
            notes.
        :param require: Single words of which every note must have each.
        :param top_k: Maximum number of notes to return.
        """
        given = {"query": query, "boost": boost, "mute": mute, "require": require, "top_k": top_k}
        text: str = self.pipeline.run({"search": given})["search"]["text"]
        return text
