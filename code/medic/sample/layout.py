"""A drawn data set: how it is written to a folder, with its page, planted faults, small twin tables and masks."""

import contextlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pandas as pd

from medic.data.stores import SYNTHETIC_MARK, mark_product
from medic.errors import MedicError
from medic.files import replacing, write_bytes, write_text

FAULTS = "planted_faults.csv"
PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("medic.sample", "pages"), trim_blocks=True, keep_trailing_newline=True
)

File = tuple[str, bytes, dict[str, np.ndarray]]  # the path of an image, its bytes, and its masks by their names


@dataclass(frozen=True)
class Sample:
    """A data set that is drawn, in its published layout and with planted faults."""

    page: str  # name of its template in ``pages``
    files: str  # regular expression of its paths, with forward slashes
    # (patients, seed, hospital): one row an image, with what is ``drawn`` in it; the faults, with the image that stands
    # in the place of another as its ``source``; and the page's table
    cast: Callable[[int, int, int], tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]
    # (records, (width, height), seed, hospital): one with a ``source`` has what is ``drawn`` in that
    draw: Callable[[pd.DataFrame, tuple[int, int], int, int], Iterator[File]]
    # (records, "" or "_small", (width, height)): the text of the tables by their names
    tables: Callable[[pd.DataFrame, str, tuple[int, int]], dict[str, str]]
    patients: tuple[int, int]  # made-up ones of the committed sample, and the fewest that its faults and classes need
    size: tuple[int, int]  # width of an image in the committed sample, and the least, pixels
    height: float = 0.75  # of an image, as a share of its width
    frame: float = 1  # width of an image over that of its subject
    twin: tuple[int, int] = (24, 16)  # images to train and to test of the small tables, at most
    packed: bool = False  # whether the images lie in ``images.zip``

    def write(
        self,
        folder: str | os.PathLike,
        *,
        patients: int | None = None,
        seed: int = 2026,
        size: int | None = None,
        hospital: int = 1,
        masks: bool = False,
    ) -> pd.DataFrame:
        """Write the set; the same arguments give byte-identical files (with the same OpenCV and Pillow).

        Args:
            folder: absent, empty, or holding an earlier sample, which is replaced.
            patients: how many are made up; as in the committed sample where left.
            seed: of everything.
            size: width of an image, pixels; as in the committed sample where left.
            hospital: 1, or 2 for another camera, another prevalence and no shortcut.
            masks: whether to write where lesions and findings lie, too: ``masks/*.png``.

        Returns:
            One row an image, in the order of the tables: ``image`` (name as there), ``patient`` (str), ``split``
            ("train" or "test"), ``label`` (int), ``fault`` (str, empty for most), ``small`` (bool, in the small tables
            too), and what the set has besides.

        Raises:
            MedicError: an unknown hospital, too few patients or pixels, a folder with anything else or not writable.
        """
        patients, width = patients or self.patients[0], size or self.size[0]
        if patients < self.patients[1] or width < self.size[1] or hospital not in (1, 2):
            raise MedicError(
                f"cannot make a sample of {patients} patients at {width} pixels in hospital {hospital}: ask for at "
                f"least {self.patients[1]} patients and {self.size[1]} pixels, and hospital 1 or 2"
            )
        shape = width, int(width * self.height)
        records, faults, counts = self.cast(patients, seed, hospital)
        records = records.join(faults.drop_duplicates("image").set_index("image"), on="image")
        records = records.fillna({"fault": "", "detail": "", "source": ""})
        records["small"] = _choose_small(records, *self.twin)
        shown = records["source"].where(records["source"] != "", records["image"])
        records["drawn"] = shown.map(records.set_index("image")["drawn"])
        made = {"seed": seed, "hospital": hospital, "patients": patients, "width": width, "height": shape[1]}
        page = PAGES.get_template(self.page).render(made, records=records, counts=counts)
        with replacing_sample(folder, page, self.files) as new:
            with zipfile.ZipFile(new / "images.zip", "w") if self.packed else contextlib.nullcontext() as archive:
                if archive:
                    _add_member(archive, SYNTHETIC_MARK, page.encode())
                for path, data, parts in self.draw(records, shape, seed, hospital):
                    _add_member(archive, path, data) if archive else write_bytes(new / path, data)
                    for name, mask in parts.items() if masks else ():
                        write_bytes(new / "masks" / f"{name}.png", cv2.imencode(".png", mask)[1].tobytes())
            if masks:
                mark_product(new / "masks")  # no reader takes them for images of the set
            for twin, rows in {"": records, "_small": records[records["small"]]}.items():
                for name, text in self.tables(rows, twin, shape).items():
                    write_text(new / name, text)
            write_text(new / FAULTS, csv(faults[["image", "fault", "detail"]]))
        return records.drop(columns=["drawn", "detail", "source"])


@contextlib.contextmanager
def replacing_sample(folder: str | os.PathLike, page: str, files: str, mark: str = SYNTHETIC_MARK) -> Iterator[Path]:
    """Give an empty folder to write a sample to; what is in it takes the place of what ``folder`` holds.

    Args:
        folder: absent, empty, or holding an earlier sample; where the block fails, it stays as it is.
        page: Markdown that describes the sample; an earlier sample has the same first line.
        files: regular expression of the paths that a sample has, below the folder, with forward slashes.
        mark: the file that holds ``page``.

    Raises:
        MedicError: the folder is a file, holds anything else, or cannot be written.
    """
    folder, ours = Path(folder), re.compile(rf"masks/[^/]+|{mark}|{FAULTS}|{files}")
    inside = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    known = mark in inside and (folder / mark).read_bytes().startswith(page.partition("\n")[0].encode())
    if foreign := [path for path in inside if not (known and ours.fullmatch(path))]:
        raise MedicError(
            f"cannot write a sample to {folder}: {foreign[0]} there is of no sample; name an empty or a new folder"
        )
    with replacing(folder.absolute()) as new:
        new.mkdir()
        write_text(new / mark, page)
        yield new


def csv(rows: pd.DataFrame | pd.Series, header: bool = True) -> str:
    """Return a table as text, the same on every system."""
    return rows.to_csv(index=False, header=header, lineterminator="\n")


def jpeg(pixels: np.ndarray, quality: int, fault: str = "") -> bytes:
    """Encode uint8 RGB as JPEG; with a fault: "truncated", "not an image", "nearly black" or "blurred"."""
    if fault == "not an image":
        return b"This is not a photograph. It is a text file with another name.\n"
    if fault == "nearly black":
        pixels = pixels // 25
    if fault == "blurred":
        pixels = cv2.GaussianBlur(pixels, (0, 0), pixels.shape[1] / 45)
    data = cv2.imencode(".jpeg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return data[: len(data) * 2 // 5] if fault == "truncated" else data


def _choose_small(records: pd.DataFrame, train: int, test: int) -> pd.Series:
    """Return which images the small tables have: of whole patients without faults, the classes in turn."""
    small, sound = pd.Series(False, records.index), records.groupby("patient")["fault"].transform("max") == ""
    for split, left in {"train": train, "test": test}.items():
        rows = records[sound & (records["split"] == split)]
        size, queue = rows["patient"].value_counts(), rows.drop_duplicates(["label", "patient"])
        queue = queue.assign(turn=queue.groupby("label").cumcount())
        for patient in queue.sort_values(["turn", "label"], ascending=[True, False])["patient"].unique():
            if size[patient] <= left:
                left -= size[patient]
                small |= records["patient"] == patient
    return small


def _add_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Store a file uncompressed, so that it can be read at random, and with a fixed date."""
    member = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
    member.create_system = 3  # as written on Unix, wherever it is written
    member.external_attr = 0o644 << 16
    archive.writestr(member, data)
