"""One training step on the CPU: plain, with the usual accelerations, ``medic.modeling.training.fit``, and the limit.

All ways take their step in one process, by turns. Those written out here are called by the fit itself: its objective,
which is public, stops in the middle of each step and lets the others have theirs. So it is the fit's own step that is
timed, with its loader, its schedule and its bookkeeping, from one loss to the next.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import Row, rows
from torch import Tensor

from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import Prepared
from medic.modeling.backbones import backbone
from medic.modeling.classifier import Classifier
from medic.modeling.objectives import CrossEntropy
from medic.modeling.training.fit import Recipe, fit
from medic.task import RETINOPATHY

OURS = "medic.modeling.training.fit"
REFERENCE = "plain fp32"
TARGET = 2.2
WARM_UP = 2
CLASSES = len(RETINOPATHY.classes)


@dataclass(frozen=True)
class Work:
    """What a step is taken on.

    Attributes:
        network: a torchvision classification network's name.
        size: side of its input in pixels.
        batch_size: images a step.
        rounds: how often each way is timed.
        compiled: whether ``torch.compile`` takes part.
    """

    network: str
    size: int
    batch_size: int
    rounds: int
    compiled: bool = False


@dataclass(frozen=True)
class _Interrupted(CrossEntropy):
    """Cross-entropy that calls ``between`` after each loss."""

    between: Callable[[], None] = lambda: None

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """As cross-entropy; the others' steps run before it returns."""
        value = super().loss(raw, labels)
        self.between()
        return value

    def to_dict(self) -> dict:
        """As cross-entropy: what is called in between decides nothing."""
        return CrossEntropy().to_dict()


@dataclass(frozen=True, eq=False, repr=False)
class _Resident(Prepared):
    """A prepared set without files: every image lies in memory, as the other ways' batch does."""

    array: np.ndarray | None = None

    def pixels(self, file: str) -> np.ndarray:
        """The image whose number ``file`` is, uint8 (S, S, 3)."""
        return self.array[int(file)]


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16."""
    return torch.cpu._is_avx512_bf16_supported()


def compare(work: Work) -> tuple[list[Row], list[str]]:
    """Time all ways on one network.

    Returns:
        The rows, and notes for below the table.
    """
    others = _written_out(work)
    seconds = {name: np.zeros(work.rounds) for name in (*others, OURS)}
    names, state = list(others), {"turn": -WARM_UP, "left": 0.0}

    def between() -> None:
        ours, turn = time.perf_counter() - state["left"], state["turn"]
        if turn > work.rounds:  # the validation pass has losses, too
            return
        if turn > 0:
            seconds[OURS][turn - 1] = ours
        state["turn"] = turn + 1
        if turn == work.rounds:
            return
        # Fit computes under autocast here; what is cast there must not outlive a step of another way.
        with torch.autocast("cpu", enabled=False):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                gc.collect()
                start = time.perf_counter()
                others[name]()
                if turn >= 0:
                    seconds[name][turn] = time.perf_counter() - start
                torch.clear_autocast_cache()
        gc.collect()
        state["left"] = time.perf_counter()

    _fit(work, between)
    target = TARGET if work.network == "resnet18" and has_bf16() else None
    table = rows(
        "training",
        {f"{work.network} step, {name}": times for name, times in seconds.items()},
        reference=f"{work.network} step, {REFERENCE}",
        work=work.batch_size,
        metric="images_per_s_in_steps",
        targets={f"{work.network} step, {OURS}": target} if target else None,
    )
    note = f"{work.network} step: {work.size} px, batch {work.batch_size}, {torch.get_num_threads()} threads"
    if not has_bf16():
        note += "; this processor has no bf16, so there is no target"
    return table, [note]


def _fit(work: Work, between: Callable[[], None]) -> None:
    """Train one epoch of just so many steps on images in memory."""
    steps = WARM_UP + work.rounds + 1
    random = np.random.default_rng(0)
    array = random.integers(0, 256, (work.batch_size, work.size, work.size, 3), dtype=np.uint8)
    number = np.arange((steps + 1) * work.batch_size)
    records = pd.DataFrame(
        {
            "image": number.astype(str),
            "file": (number % work.batch_size).astype(str),
            "patient": number.astype(str),
            "split": np.where(number < steps * work.batch_size, "train", "validation"),
            "label": number % CLASSES,
        }
    )
    preprocessing = Preprocessing(size=work.size, crop="square")
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
        prepared = _Resident(Path(place), records, records[:0], preprocessing, True, array)
        torch.manual_seed(0)
        model = Classifier(RETINOPATHY, work.network, _Interrupted(between=between), preprocessing, work.size)
        fit(model, prepared, Path(place) / "run", Recipe(epochs=1, batch_size=work.batch_size, augmentation=None))


def _written_out(work: Work) -> dict[str, Callable[[], None]]:
    """The ways that are a few lines of PyTorch, by name; each call is one step on a batch that lies in memory."""
    ways = {REFERENCE: _step(work), "fp32 channels_last": _step(work, channels_last=True)}
    if has_bf16():
        ways |= {
            "bf16": _step(work, bf16=True),
            "bf16 channels_last": _step(work, channels_last=True, bf16=True),
        }
        if work.compiled:
            ways["bf16 channels_last compiled"] = _step(work, channels_last=True, bf16=True, compiled=True)
    ways["limit: forward and backward alone"] = _step(work, channels_last=True, bf16=has_bf16(), optimizing=False)
    return ways


def _step(
    work: Work,
    *,
    channels_last: bool = False,
    bf16: bool = False,
    compiled: bool = False,
    optimizing: bool = True,
) -> Callable[[], None]:
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = backbone(work.network, CLASSES).to(memory_format=layout)
    forward = torch.compile(network) if compiled else network
    images = torch.rand(work.batch_size, 3, work.size, work.size).contiguous(memory_format=layout)
    labels = torch.arange(work.batch_size) % CLASSES
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3) if optimizing else None

    def step() -> None:
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            raw = forward(images)
        torch.nn.functional.cross_entropy(raw.float(), labels).backward()
        if optimizer is not None:
            optimizer.step()

    return step
