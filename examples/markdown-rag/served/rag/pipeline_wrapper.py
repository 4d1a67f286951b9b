# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The answers of run.py, as a chat for any client of OpenAI, and as an MCP tool."""

from hayhooks import BasePipelineWrapper, get_last_user_message
from run import ask, index, rag


class PipelineWrapper(BasePipelineWrapper):
    """Answers from the notes about lighthouses."""

    def setup(self) -> None:
        """Index the notes and load the pipeline."""
        self.pipeline = rag(index())

    def run_chat_completion(self, model: str, messages: list[dict], body: dict) -> str:  # noqa: ARG002
        """Answer the last message of a chat."""
        return ask(self.pipeline, get_last_user_message(messages) or "")

    def run_api(self, question: str) -> str:
        """
        Answers a question about lighthouses from notes, and lists the notes that the answer is from.

        :param question: The question, as a sentence.
        """
        return ask(self.pipeline, question)
