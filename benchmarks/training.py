"""One training step on the CPU: plain, with the usual accelerations, ``medic.modeling.training.fit``, and the limit.

All ways are timed in one process, by turns, several steps a turn. What is written out here computes on a batch in
memory. ``fit`` is timed by its own clock in the second of two epochs: its steps with loader, decoding, schedule and
bookkeeping, without its start. What other libraries reach is in ``quality_in_time.py``.
"""

import contextlib
import itertools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import Row, arguments, interleave, origin, rows, run, show, write

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.split import complete_splits
from medic.modeling.backbones import backbone
from medic.modeling.classifier import Classifier
from medic.modeling.training.fit import Recipe, fit
from medic.task import RETINOPATHY

REFERENCE, OURS = "plain fp32", "medic.modeling.training.fit"
TARGET = 2.2
CLASSES = len(RETINOPATHY.classes)


@dataclass(frozen=True)
class Work:
    """What a step is taken on: a torchvision network, its input's side in pixels, images a step, steps a turn."""

    network: str
    size: int = 224
    batch_size: int = 16
    steps: int = 4
    rounds: int = 7


def has_bf16() -> bool:
    """Return whether this processor computes in bfloat16, and may."""
    return "AVX512" in torch.backends.cpu.get_cpu_capability() and torch.cpu._is_avx512_bf16_supported()


def compare(work: Work, prepared: Prepared) -> list[Row]:
    """Time all ways on one network; ``prepared`` holds the training images that ``fit`` reads."""
    ways = {REFERENCE: _steps(work), "fp32 channels_last": _steps(work, channels_last=True)}
    if has_bf16():
        ways |= {"bf16": _steps(work, bf16=True), "bf16 channels_last": _steps(work, channels_last=True, bf16=True)}
    ways["limit: forward and backward alone"] = _steps(work, channels_last=True, bf16=has_bf16(), optimizing=False)
    with tempfile.TemporaryDirectory() as place:
        ways[OURS] = _fit(work, prepared, Path(place))
        seconds = interleave(ways, work.rounds)
    target = {f"{work.network} step, {OURS}": TARGET} if work.network == "resnet18" and has_bf16() else None
    return rows(
        "training",
        {f"{work.network} step, {name}": times for name, times in seconds.items()},
        reference=f"{work.network} step, {REFERENCE}",
        work=work.batch_size * work.steps,
        metric="images_per_s_in_steps",
        targets=target,
    )


def _fit(work: Work, prepared: Prepared, place: Path) -> Callable[[], float]:
    """Train two epochs of ``steps`` steps; gives the seconds of the second one's."""
    number, images = itertools.count(), work.steps * work.batch_size
    known = prepared.split("train")
    filled = known.iloc[np.arange(images) % len(known)]
    filled = filled.assign(image=[f"{count} {name}" for count, name in enumerate(filled["image"])], split="train")
    some = prepared.split("validation").iloc[: work.batch_size]
    few = replace(prepared, records=pd.concat([filled, some], ignore_index=True))
    recipe = Recipe(epochs=2, batch_size=work.batch_size, augmentation=None)

    def seconds() -> float:
        torch.manual_seed(0)
        model = Classifier(RETINOPATHY, work.network, preprocessing=few.preprocessing, image_size=work.size)
        with contextlib.redirect_stdout(sys.stderr):
            history = fit(model, few, place / str(next(number)), recipe).history
        return images / float(history["images_per_second"].iloc[-1])

    return seconds


def _steps(
    work: Work, *, channels_last: bool = False, bf16: bool = False, optimizing: bool = True
) -> Callable[[], None]:
    """Write the steps out as a few lines of PyTorch."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = backbone(work.network, CLASSES).to(memory_format=layout)
    images = torch.rand(work.batch_size, 3, work.size, work.size).contiguous(memory_format=layout)
    labels = torch.arange(work.batch_size) % CLASSES
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def steps() -> None:
        for _ in range(work.steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                raw = network(images)
            torch.nn.functional.cross_entropy(raw.float(), labels).backward()
            if optimizing:
                optimizer.step()

    return steps


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    works = [Work("resnet18", batch_size=8, steps=2, rounds=2)] if options.quick else [Work("resnet18")]
    works += [] if options.quick else [Work("efficientnet_v2_s", batch_size=8, rounds=4)]
    records, store = retinopathy.read(options.data / "retinopathy")
    records = complete_splits(records[[name in store for name in records["image"]]])
    records = records.groupby("split").head(32).reset_index(drop=True)
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(records, store, place, Preprocessing(size=works[0].size))
        table = [row for work in works for row in compare(work, prepared)]
    note = f"{works[0].size} px, {torch.get_num_threads()} threads"
    show(table, note if has_bf16() else f"{note}; no bf16 here, so no target", origin(options.data))
    write(table, "training", options)


if __name__ == "__main__":
    run(main)
