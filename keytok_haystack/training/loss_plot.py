# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The plot of the loss."""

from pathlib import Path

from keytok_haystack.evaluation.chart import OTHERS, OURS
from keytok_haystack.training.loop import Trained


def draw_loss(trained: Trained, file: Path) -> None:
    """Draw the training loss and the held-out loss over the steps, in the format that the file's suffix names."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # a second to import

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, label, color in (("loss", "training", OTHERS), ("held_out_loss", "held out", OURS)):
        points = [(entry["step"], entry[name]) for entry in trained.history if name in entry]
        at_the_end = f"{label}, at the end {points[-1][1]:.2f}"  # labels beside the two lines would overlap
        marker = None if name == "loss" else "o"
        axes.plot(*zip(*points, strict=True), label=at_the_end, color=color, marker=marker, ms=4)
    axes.set(xlabel="step", ylabel="divergence from the targets, nats", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2)
    figure.savefig(file)
