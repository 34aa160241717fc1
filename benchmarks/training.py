"""Training: one step, whole and in parts, on this CPU; or whole epochs on one GPU.

    python benchmarks/training.py [--quick]        on this CPU
    python benchmarks/training.py --device cuda    on this machine's GPU: images/s and share of its bf16 peak

Targets: a step of ``medic.modeling.training.fit`` on resnet18 at least 2.2 times as fast as plain
fp32 where the CPU has bf16; on a GPU an epoch of 5,000 images with EfficientNetV2-M at 380 px in less than the 900 s
that the published run took on one V100. What other libraries reach is in ``quality_in_time.py``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import training_device
import training_step
from measure import arguments, origin, run, show, write
from training_step import Work


def main() -> None:
    parser = arguments("Training speed: a step on this CPU, or epochs on one GPU.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the GPU part alone")
    parser.add_argument("--compile", action="store_true", help="torch.compile takes part in the CPU step (minutes)")
    options = parser.parse_args()
    if options.device == "cuda":
        name = f"training_{training_device.card()}"
        extent = training_device.QUICK if options.quick else training_device.FULL
        table, notes = training_device.compare(training_device.SETUPS, options.data, torch.device("cuda"), extent)
        show(table, *notes, origin(options.data))
    else:
        name = "training"
        small = Work("resnet18", 224, 16, 10, options.compile)
        large = Work("efficientnet_v2_s", 224, 8, 4, options.compile)
        table, notes = training_step.compare(replace(small, batch_size=8, rounds=3) if options.quick else small)
        if not options.quick:
            table += training_step.compare(large)[0]
        show(table, *notes, origin(options.data))
    write(table, name, options)


if __name__ == "__main__":
    run(main)
