"""The lines of the series: what belongs to each published layout, so that commands and notebooks need only its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medic.data import digits_sample, synthetic, synthetic_radiographs
from medic.data.preprocess import Preprocessing
from medic.data.readers import chest_xray, digits, retinopathy
from medic.data.stores import Store
from medic.errors import MedicError
from medic.task import CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE, DIGITS, RETINOPATHY, Task


@dataclass(frozen=True)
class Line:
    """One layout, the questions that are put to it, and how its images become pixels.

    Attributes:
        name: of the folder or zip file below a data folder.
        tasks: the questions; the first is the usual one.
        read: the reader: ``read(source, images=None)`` gives records and store.
        preprocessing: how bytes become pixels, but for the size.
        write_sample: writes the sample that the repository holds: ``write_sample(folder, patients=..., seed=...)``;
            for the digits, which are real and whose number is given, ``write_sample(folder)``.
        draw: writes generated images to pretrain on, ``draw(folder, patients, seed, side)`` with ``side`` the pixels
            across their subject; None where none can be drawn.
    """

    name: str
    tasks: tuple[Task, ...]
    read: Callable[..., tuple[pd.DataFrame, Store]]
    preprocessing: Preprocessing
    write_sample: Callable[..., pd.DataFrame | None]
    draw: Callable[[Path, int, int, int], object] | None = None

    def find(self, data: Path) -> Path:
        """Where the line's set lies: its folder or zip file below ``data``, or ``data`` itself."""
        candidates = (data / self.name, data / f"{self.name}.zip")
        return next((path for path in candidates if path.exists()), data)


def _draw_fundi(folder: Path, patients: int, seed: int, side: int) -> None:
    # The retina is about five eighths of the frame wide.
    synthetic.write_sample(folder, patients=patients, seed=seed, width=side * 8 // 5, height=side * 6 // 5)


def _draw_radiographs(folder: Path, patients: int, seed: int, side: int) -> None:
    synthetic_radiographs.write_sample(folder, patients=patients, seed=seed, size=side)


LINES = {
    line.name: line
    for line in (
        Line(
            "retinopathy",
            (RETINOPATHY,),
            retinopathy.read,
            Preprocessing(crop="fundus"),
            synthetic.write_sample,
            _draw_fundi,
        ),
        Line(
            "chest_xray",
            (CHEST_XRAY, CHEST_XRAY_BINARY, CHEST_XRAY_OR_NONE),
            chest_xray.read,
            Preprocessing(crop="square", grey=True),
            synthetic_radiographs.write_sample,
            _draw_radiographs,
        ),
        Line(
            "digits",
            (DIGITS,),
            digits.read,
            Preprocessing(crop="square", grey=True),
            digits_sample.write_sample,
        ),
    )
}


def line_of(task: Task) -> Line:
    """The line that a task belongs to.

    Raises:
        MedicError: none, as for a task of the reader's own.
    """
    for line in LINES.values():
        if task in line.tasks:
            return line
    raise MedicError(
        f"the task {task.name!r} belongs to none of the lines {', '.join(LINES)}; read its images yourself"
    )
