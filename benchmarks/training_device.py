"""Training on one GPU: images a second, the share of its bf16 peak, and an epoch of 5,000 images against a V100's."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import Row, figure
from torch.utils.flop_counter import FlopCounterMode

from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import usable_cores
from medic.data.prepare import Prepared, prepare
from medic.data.readers import retinopathy
from medic.data.split import complete_splits
from medic.errors import MedicError
from medic.modeling.classifier import Classifier
from medic.modeling.training.fit import fit
from medic.modeling.training.recipe import Recipe
from medic.task import RETINOPATHY

EPOCH_IMAGES = 5000
PUBLISHED_SECONDS = 900
"""An epoch of EfficientNetV2-M at 380 px, about 5,000 images, on one V100, as the published run reports it."""

DENSE_BF16 = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989.5e12,
    "H100 80GB HBM3": 989.5e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""Dense bf16 tensor-core peak in FLOP/s by a part of the card's name, first match, from NVIDIA's data sheet of each
card; where a sheet states the figure with sparsity (H100, H200, B200, L4, L40S) it is halved. A card that is not here
is measured: see ``peak``."""


@dataclass(frozen=True)
class Setup:
    """What is trained.

    Attributes:
        network: a torchvision classification network's name.
        size: side of its input in pixels.
        prepared_size: side of the prepared images in pixels.
        batch_size: images a step; halved until they fit into the card's memory, which is then said.
        published_seconds: of an epoch of 5,000 images, to be undercut; None where nothing was published.
    """

    network: str
    size: int
    prepared_size: int
    batch_size: int
    published_seconds: float | None = None


SETUPS = (
    Setup("efficientnet_v2_m", 380, 448, 96, PUBLISHED_SECONDS),
    Setup("resnet50", 224, 256, 256),
    Setup("densenet121", 224, 256, 256),
)


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        images: in an epoch.
        epochs: through the loader; the first, in which kernels are chosen and compiled, does not count.
        rounds: timings of the step on resident data.
        steps: in each of them.
        workers: processes that load images; one a core, 16 at most, when None.
        compiles: ``torch.compile`` off and on.
    """

    images: int = EPOCH_IMAGES
    epochs: int = 3
    rounds: int = 10
    steps: int = 10
    workers: int | None = None
    compiles: tuple[bool, ...] = (False, True)

    @property
    def loading(self) -> int:
        """Processes that load images."""
        return min(usable_cores(), 16) if self.workers is None else self.workers


FULL = Extent()
QUICK = Extent(images=1000, epochs=2, rounds=3, steps=3)


def card() -> str:
    """The GPU's name, fit for a file's.

    Raises:
        MedicError: there is no GPU that torch can use.
    """
    if not torch.cuda.is_available():
        raise MedicError("torch finds no GPU here; run benchmarks/training.py without --device cuda for the CPU")
    return re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_")


def compare(setups: tuple[Setup, ...], data: Path, device: torch.device, extent: Extent) -> tuple[list[Row], list[str]]:
    """Measure every setup.

    Args:
        setups: what is trained.
        data: folder that holds ``retinopathy/``; its images are repeated to fill the epoch.
        device: where.
        extent: how much.

    Returns:
        The rows, and notes for below the table.
    """
    most, source = peak(device)
    table = [figure("training", str(device), "bf16_peak_tflops", most / 1e12)]
    notes = [
        f"bf16 peak {most / 1e12:.0f} TFLOP/s: {source}",
        "FLOPs of forward and backward as torch.utils.flop_counter counts them (a multiply-add is two)",
        f"through the loader: medic.modeling.training.fit, {extent.images} images an epoch (a smaller set, repeated), "
        f"{extent.loading} workers, which vary the images; median of the epochs after the first",
    ]
    for setup in setups:
        flops = _flops(setup, device)
        with tempfile.TemporaryDirectory() as place:
            prepared = _repeated(data, Path(place), setup.prepared_size, extent.images)
            for compiled in extent.compiles:
                name = f"{setup.network} {setup.size} px, bf16 channels_last, compile {'on' if compiled else 'off'}"
                print(name, flush=True)
                try:
                    rate, fitted = _resident(setup, compiled, device, extent)
                    table += _speeds(f"{name}, resident, batch {fitted.batch_size}", rate, flops, most)
                    table += _through_loader(fitted, compiled, prepared, extent, name)
                except torch.OutOfMemoryError as error:
                    notes.append(f"{name} through the loader did not fit: {' '.join(str(error).split())[:300]}")
                except Exception as error:  # the compiler fails in many ways; the other rows shall not be lost
                    if not compiled:
                        raise
                    notes.append(f"{name} failed: {' '.join(str(error).split())[:300]}")
                    table.append(Row("training", name, "images_per_s", None))
    return table, notes


def peak(device: torch.device) -> tuple[float, str]:
    """The dense bf16 peak in FLOP/s, and where it is from: the table, or else one large matrix product."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    for known, value in DENSE_BF16.items():
        if re.search(rf"\b{re.escape(known)}\b", name):
            return value, f"data sheet of the {known}, for the {name}"
    side = 8192 if device.type == "cuda" else 256
    a, b = (torch.rand(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    times = _timed(lambda: a @ b, device, rounds=10, steps=5)
    return 2 * side**3 / float(times.min()), f"measured, {side} x {side} matrix product; the {name} is not in the table"


def _flops(setup: Setup, device: torch.device) -> float:
    """Floating-point operations of forward and backward for one image."""
    model = Classifier(RETINOPATHY, setup.network, image_size=setup.size).to(device).train()
    batch = torch.rand(2, 3, setup.size, setup.size, device=device)  # batch normalisation wants more than one
    with FlopCounterMode(display=False) as counter:
        model.backbone(batch).sum().backward()
    return counter.get_total_flops() / len(batch)


def _resident(setup: Setup, compiled: bool, device: torch.device, extent: Extent) -> tuple[np.ndarray, Setup]:
    """Images a second of whole steps on one uint8 batch that stays on the device, and the setup that fitted."""
    while True:
        try:
            step = _step(setup, compiled, device)
            seconds = _timed(step, device, extent.rounds, extent.steps)
            return setup.batch_size / seconds, setup
        except torch.OutOfMemoryError:
            if setup.batch_size < 2:
                raise
        step = None  # its network is given back before the smaller one is made
        torch.cuda.empty_cache()
        setup = replace(setup, batch_size=setup.batch_size // 2)
        print(f"  does not fit into the card's memory: batch {setup.batch_size} instead", flush=True)


def _step(setup: Setup, compiled: bool, device: torch.device) -> Callable[[], None]:
    """Normalisation, forward, backward and optimizer as ``medic.modeling.training.fit`` composes them."""
    model = Classifier(RETINOPATHY, setup.network, image_size=setup.size)
    model = model.to(device, memory_format=torch.channels_last).train()
    forward = torch.compile(model.backbone, dynamic=False) if compiled else model.backbone
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    shape = (setup.batch_size, setup.size, setup.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.arange(setup.batch_size, device=device) % len(RETINOPATHY.classes)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            raw = forward(model.inputs(images).contiguous(memory_format=torch.channels_last))
        model.objective.loss(raw.float(), labels).backward()
        optimizer.step()

    return step


def _timed(call: Callable[[], object], device: torch.device, rounds: int, steps: int) -> np.ndarray:
    """Seconds a call, float64 (rounds,), each the mean over ``steps``; warmed up before."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(3):
        call()
    wait()
    seconds = np.zeros(rounds)
    for turn in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            call()
        wait()
        seconds[turn] = (time.perf_counter() - start) / steps
    return seconds


def _speeds(name: str, rate: np.ndarray, flops: float, most: float) -> list[Row]:
    low, middle, high = (float(value) for value in np.percentile(rate, (25, 50, 75)))
    share = flops / most
    return [
        figure("training", name, "images_per_s", middle, spread=(low, high)),
        figure("training", name, "share_of_bf16_peak", middle * share, spread=(low * share, high * share)),
    ]


def _through_loader(setup: Setup, compiled: bool, prepared: Prepared, extent: Extent, name: str) -> list[Row]:
    """Rows of the whole fit: reading, decoding, moving, training, and a pass over the validation images."""
    recipe = Recipe(epochs=extent.epochs, batch_size=setup.batch_size, workers=extent.loading, compile=compiled)
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
        torch.manual_seed(0)
        model = Classifier(RETINOPATHY, setup.network, preprocessing=prepared.preprocessing, image_size=setup.size)
        history = fit(model, prepared, Path(place) / "run", recipe).history.iloc[1:]
    title = f"{name}, medic.modeling.training.fit, batch {setup.batch_size}"
    # An epoch here is its training images alone: the published figure says nothing of validation.
    seconds = extent.images / history["images_per_second"].to_numpy()
    scaled = np.percentile(seconds, (25, 50, 75)) * EPOCH_IMAGES / extent.images
    low, middle, high = (float(value) for value in scaled)
    epoch = figure(
        "training",
        title,
        f"s_per_epoch_of_{EPOCH_IMAGES}",
        middle,
        spread=(low, high),
        target=setup.published_seconds,
        at_most=True,
    )
    if setup.published_seconds:
        epoch = replace(epoch, ratio=setup.published_seconds / middle)
    rate = figure(
        "training", title, "images_per_s", EPOCH_IMAGES / middle, spread=(EPOCH_IMAGES / high, EPOCH_IMAGES / low)
    )
    return [rate, epoch]


def _repeated(data: Path, folder: Path, size: int, images: int) -> Prepared:
    """A prepared set whose training images are repeated until there are ``images``."""
    records, store = retinopathy.read(data / "retinopathy")
    records = complete_splits(records[[name in store for name in records["image"]]])
    prepared = prepare(records, store, folder, Preprocessing(size=size))
    training = prepared.split("train")
    filled = training.iloc[np.arange(images) % len(training)]
    filled = filled.assign(image=[f"{number} {name}" for number, name in enumerate(filled["image"])])
    records = pd.concat([filled, prepared.split("validation")], ignore_index=True)
    return replace(prepared, records=records)
