"""What the drawn sets share: hospitals, the folder they are written to, its page, damaged files, small twins."""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medic.data.stores import SYNTHETIC_MARK
from medic.errors import MedicError
from medic.files import write_text

FAULTS = "planted_faults.csv"

ABOUT = """# {title}

**Synthetic.** Every image here was drawn by a program from random numbers. No real patient, and no clinical meaning:
a result from this folder says that the software works, nothing about patients.

Made by `medic sample` with seed {seed} at hospital {hospital}: {made}.
The same seed gives the same files.

| file | content |
| --- | --- |
{files}
| `planted_faults.csv` | the faults that were put in on purpose: `image,fault,detail` |
| `masks/` | where each lesion lies; written on request (`--masks`), not committed |

{text}

| | hospital 1 | hospital 2 |
| --- | --- | --- |
{hospitals}
"""


@dataclass(frozen=True)
class Hospital:
    """Where images are taken: its camera, the people who come, and what gives the label away without being illness.

    Attributes:
        camera: a few words for ``SYNTHETIC.md``; ``people`` and ``shortcut`` likewise.
        people: how frequent illness is.
        shortcut: what goes with illness here and nowhere else.
        tint: gain of red, green and blue.
        gamma: exponent of the brightness (0-1); below 1 is brighter.
        blur: standard deviation of the focus, in widths of the image.
        zoom: size of what is shown; below 1 the field of view is wider.
    """

    camera: str
    people: str
    shortcut: str = "none"
    tint: tuple[float, float, float] = (1, 1, 1)
    gamma: float = 1
    blur: float = 0
    zoom: float = 1

    def take(self, pixels: np.ndarray) -> np.ndarray:
        """Return an image, uint8 (height, width) or RGB (height, width, 3), as this hospital's camera takes it."""
        if self.blur:
            pixels = cv2.GaussianBlur(pixels, (0, 0), self.blur * pixels.shape[1])
        gain = np.array(self.tint if pixels.ndim == 3 else self.tint[:1])
        table = np.rint(255 * ((np.arange(256) / 255) ** self.gamma)[:, None] * gain).clip(0, 255).astype(np.uint8)
        return cv2.LUT(pixels, table[None] if pixels.ndim == 3 else table[:, 0])


@contextlib.contextmanager
def replacing_sample(folder: str | os.PathLike, title: str, files: str, mark: str = SYNTHETIC_MARK) -> Iterator[Path]:
    """Give an empty folder to write a sample to; it takes the place of ``folder`` when the block ends well.

    Args:
        folder: absent, empty, or holding an earlier sample; where the block fails, it stays as it is.
        title: how the file that describes a sample begins, after the ``#``.
        files: regular expression of the paths that a sample has, below the folder, with forward slashes.
        mark: the file that describes a sample.

    Raises:
        MedicError: the folder is a file, holds anything else, or cannot be written.
    """
    folder = Path(folder)
    earlier = _earlier_files(folder, mark, title, re.compile(rf"masks/[^/]+\.png|{mark}|{FAULTS}|{files}"))
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        # The mark goes first, so that a run that is killed here can be repeated; the faults go last.
        order = {mark: 0, FAULTS: 2}
        made = [path.relative_to(unfinished) for path in unfinished.rglob("*") if path.is_file()]
        for path in sorted(made, key=lambda path: (order.get(str(path), 1), path)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished / path, folder / path)
        for path in earlier - {folder / path for path in made}:
            path.unlink()
    except OSError as error:
        raise MedicError(
            f"cannot write a sample to {folder}: {error.strerror or error}; name another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _earlier_files(folder: Path, mark: str, title: str, files: re.Pattern) -> set[Path]:
    if folder.exists() and not folder.is_dir():
        raise MedicError(f"cannot write a sample to {folder}: it is a file; name a folder")
    found = {path for path in folder.rglob("*") if not path.is_dir()}
    ours = not found or (folder / mark in found and (folder / mark).read_bytes().startswith(f"# {title}".encode()))
    for inside in sorted(path.relative_to(folder).as_posix() for path in found):
        if not (ours and files.fullmatch(inside)):
            raise MedicError(
                f"cannot write a sample to {folder}: {inside} there is of no sample; name an empty or a new folder"
            )
    return found


def write_about(
    folder: Path, title: str, made: dict[str, object], files: dict[str, str], text: str, hospitals: dict[int, Hospital]
) -> None:
    """Write ``SYNTHETIC.md``.

    ``made`` holds ``seed``, ``hospital`` (its number) and ``made`` (how many images, of what size); ``files`` is the
    content by file; ``text``, in Markdown, is what a reader needs to know besides.
    """
    rows = [
        f"| {name} | " + " | ".join(getattr(hospital, name) for hospital in hospitals.values()) + " |"
        for name in ("camera", "people", "shortcut")
    ]
    listed = "\n".join(f"| {name} | {content} |" for name, content in files.items())
    page = ABOUT.format(title=title, files=listed, text=text.strip(), hospitals="\n".join(rows), **made)
    write_text(folder / SYNTHETIC_MARK, page)


def write_table(path: Path, rows: pd.DataFrame | pd.Series, header: bool = True) -> None:
    """Write a CSV with the same bytes on every system."""
    write_text(path, rows.to_csv(index=False, header=header, lineterminator="\n"))


def choose_small(records: pd.DataFrame, most: dict[str, int]) -> pd.Series:
    """Choose the images of the small twin tables: whole patients without faults, the classes in turn.

    ``records`` have ``patient``, ``split``, ``label`` and ``fault`` ("" for none); ``most`` is the number of images by
    split, at most. Returns bool by the records' index.
    """
    chosen = pd.Series(False, records.index)
    sound = records.groupby("patient")["fault"].transform(lambda faults: (faults == "").all())
    for split, limit in most.items():
        rows = records[sound & (records["split"] == split)]
        waiting = [list(of["patient"].unique()) for _, of in sorted(rows.groupby("label"), key=lambda pair: -pair[0])]
        left, size, taken = limit, rows["patient"].value_counts(), set()
        while any(waiting):
            for patients in filter(None, waiting):
                patient = patients.pop(0)
                if patient not in taken and size[patient] <= left:
                    taken.add(patient)
                    left -= size[patient]
        chosen |= records["patient"].isin(taken) & (records["split"] == split)
    return chosen


def jpeg(pixels: np.ndarray, quality: int, fault: str = "") -> bytes:
    """Encode uint8 RGB as JPEG; with a fault: "truncated", "not an image", "nearly black" or "blurred"."""
    if fault == "not an image":
        return b"This is not a photograph. It is a text file with another name.\n"
    if fault == "nearly black":
        pixels = pixels // 25
    if fault == "blurred":
        pixels = cv2.GaussianBlur(pixels, (0, 0), pixels.shape[1] / 45)
    _, encoded = cv2.imencode(".jpeg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    data = encoded.tobytes()
    return data[: len(data) * 2 // 5] if fault == "truncated" else data
