# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Nothing that an engine has acknowledged is lost, whatever is killed meanwhile.

Longer, from another seed, or once more what has failed:

    KEYTOK_CRASH_SECONDS=1800 KEYTOK_CRASH_SEED=7 python -m pytest tests/crash -s
    KEYTOK_CRASH_REPLAY=FILE python -m pytest tests/crash
"""

import os
from pathlib import Path

import pytest
from crash.world import World, replayed, steps

SECONDS = float(os.environ.get("KEYTOK_CRASH_SECONDS", "15"))
SEED = int(os.environ.get("KEYTOK_CRASH_SEED", "0"))
REPLAY = os.environ.get("KEYTOK_CRASH_REPLAY")

two_engines = pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])


@pytest.mark.slow
@two_engines
@pytest.mark.parametrize("external", [False, True], ids=["versions of the engine", "versions of the writers"])
def test_nothing_acknowledged_is_lost(
    kind, external, node, small_model_folder, small_texts, small_embeddings, tmp_path
):
    todo, seconds = steps(SEED, len(small_texts)), SECONDS
    if REPLAY:
        about, taken = replayed(Path(REPLAY))
        if (about["kind"], about["external"]) != (kind, external):
            pytest.skip("The file is of another engine.")
        todo, seconds = iter(taken), float("inf")
    world = World(kind, node, small_model_folder, small_texts, small_embeddings, external)
    try:
        world.run(todo, seconds)
    except BaseException:
        file = Path.cwd() / f"crash-{kind}-{SEED}.json"
        world.record(file, SEED)
        print(f"Seed {SEED}, {len(world.done):,} steps: KEYTOK_CRASH_REPLAY={file} plays them again.")
        raise
    print(f"{kind}: {len(world.done):,} steps: {world.counts}")
