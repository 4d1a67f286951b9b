# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The plot of the loss."""

from pathlib import Path

from keytok_haystack.evaluation.chart import OTHERS, OURS
from keytok_haystack.training.loop import Trained


def draw_loss(trained: Trained, file: Path) -> None:
    """Draw the training loss and the held-out loss over the steps, in the format that the file's suffix names."""
    import matplotlib as mpl  # noqa: PLC0415  # a second to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, label, color in (("loss", "training", OTHERS), ("held_out_loss", "held out", OURS)):
        points = [(entry["step"], entry[name]) for entry in trained.history if name in entry]
        at_the_end = f"{label}, at the end {points[-1][1]:.2f}"  # labels beside the two lines would overlap
        marker = None if name == "loss" else "o"
        axes.plot(*zip(*points, strict=True), label=at_the_end, color=color, marker=marker, ms=4)
    axes.set(xlabel="step", ylabel="divergence from the targets, nats", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file)
    plt.close(figure)
