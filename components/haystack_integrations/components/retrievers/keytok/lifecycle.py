# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`warm_up` and `close` of components inside a component, which need not have them."""

import asyncio
from typing import Any, Literal

Step = Literal["warm_up", "close"]


def call_each(step: Step, *components: Any) -> None:
    """Call the method of each component that has it."""
    for component in components:
        if hasattr(component, step):
            getattr(component, step)()


async def call_each_async(step: Step, *components: Any) -> None:
    """Call the asynchronous method of each component that has it, and warm up the others in a thread."""
    for component in components:
        if hasattr(component, f"{step}_async"):
            await getattr(component, f"{step}_async")()
        elif step == "warm_up" and hasattr(component, step):
            await asyncio.to_thread(component.warm_up)
