"""Training: one step, whole epochs beside other libraries, two processes, and one GPU.

    python benchmarks/training.py [--quick]        on this CPU; the other libraries in an environment of their own
    python benchmarks/training.py --device cuda    on this machine's GPU: images/s and share of its bf16 peak

Targets: a step of ``medic.modeling.training.fit`` on resnet18 at least 2.2 times as fast as plain
fp32 where the CPU has bf16; on a GPU an epoch of 5,000 images with EfficientNetV2-M at 380 px in less than the 900 s
that the published run took on one V100.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import training_device
import training_peers
import training_step
from measure import Row, arguments, origin, run, show, write
from training_peers import Extent
from training_step import Work

QUICK = Extent(train=32, validation=16, epochs=1, rounds=1, batch_size=16)
FULL = Extent(train=128, validation=32, epochs=3, rounds=1)


def main() -> None:
    parser = arguments("Training speed: a step, whole epochs beside peers, two processes; or one GPU.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the GPU part alone")
    parser.add_argument("--compile", action="store_true", help="torch.compile takes part in the CPU step (minutes)")
    parser.add_argument("--only", choices=("step", "peers", "processes"), help="show one part, and write nothing")
    options = parser.parse_args()
    if options.device == "cuda":
        name = f"training_{training_device.card()}"
        extent = training_device.QUICK if options.quick else training_device.FULL
        table, notes = training_device.compare(training_device.SETUPS, options.data, torch.device("cuda"), extent)
        show(table, *notes, origin(options.data))
        write(table, name, options)
        return
    table, notes = on_cpu(options)
    show(table, *notes, origin(options.data))
    if options.only is None:
        write(table, "training", options)


def on_cpu(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The parts of the CPU benchmark, in the order of the table: rows, and notes for below it."""
    table, notes = [], []

    def add(part: tuple[list[Row], list[str]]) -> None:
        table.extend(part[0])
        notes.extend(part[1])

    if options.only in (None, "step"):
        small, large = (
            Work("resnet18", 224, 16, 10, options.compile),
            Work("efficientnet_v2_s", 224, 8, 4, options.compile),
        )
        add(training_step.compare(replace(small, batch_size=8, rounds=3) if options.quick else small))
        if not options.quick:
            add(training_step.compare(large))
    if options.only == "step":
        return table, notes
    extent = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = training_peers.prepare_photographs(options.data, folder / "prepared", extent)
        if options.only in (None, "peers"):
            add(training_peers.compare(job, folder, extent.rounds, install=not options.quick))
        if options.only == "processes" or (options.only is None and not options.quick):
            table.extend(training_peers.compare_processes(replace(job, epochs=2), folder, 1))
    return table, notes


if __name__ == "__main__":
    run(main)
