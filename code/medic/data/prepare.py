"""The prepared set: images cropped and scaled once, so that training reads small files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import pandas as pd

from medic.data.decode import decode
from medic.data.parallel import each
from medic.data.preprocess import Preprocessing
from medic.data.records import read_records
from medic.data.stores import Store, is_synthetic, open_store
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_bytes, write_json

JPEG_QUALITY = 95
_FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """A prepared set on disk.

    Attributes:
        folder: where it lies: ``images/``, ``records.csv``, ``skipped.csv``, ``manifest.json``.
        records: the rows whose image was prepared, with the column ``file`` (its place below the folder).
        skipped: the rows that were left out, with ``reason`` and ``detail``.
        preprocessing: how bytes became pixels.
        synthetic: whether the originals are generated images, and every figure has to say so.
    """

    folder: Path
    records: pd.DataFrame
    skipped: pd.DataFrame
    preprocessing: Preprocessing
    synthetic: bool

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Prepared:
        """Open a prepared set.

        Raises:
            MedicError: there is none, it is incomplete, or it was written by another version.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
            if manifest["format"] != _FORMAT:
                raise MedicError(
                    f"the prepared set {folder} has format {manifest['format']}, not {_FORMAT}; prepare anew"
                )
            records, skipped = (read_records(folder / name) for name in ("records.csv", "skipped.csv"))
        except FileNotFoundError as error:
            raise MedicError(f"{folder} holds no complete prepared set; run prepare (again): it goes on") from error
        except (ValueError, KeyError, TypeError) as error:
            raise MedicError(f"the prepared set {folder} is damaged ({error}); delete it and prepare anew") from error
        return cls(folder, records, skipped, preprocessing, manifest["synthetic"])

    @cached_property
    def store(self) -> Store:
        """The store of the original images.

        Raises:
            MedicError: the originals have moved.
        """
        source = json.loads((self.folder / "manifest.json").read_text())["source"]
        return open_store(Path(os.path.normpath(self.folder / source)))

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split.

        Raises:
            MedicError: no image is in it.
        """
        rows = self.records[self.records["split"] == name].reset_index(drop=True)
        if rows.empty:
            there = ", ".join(sorted(set(self.records["split"])))
            raise MedicError(f"the prepared set {self.folder} has no images in the split {name!r}, only in {there}")
        return rows

    def pixels(self, file: str) -> np.ndarray:
        """One prepared image, uint8 (size, size, 3) RGB; ``file`` as in the records."""
        return decode((self.folder / file).read_bytes())

    def __repr__(self) -> str:
        return (
            f"<Prepared set {self.folder.name}: {len(self.records)} images of {self.preprocessing.size} px, "
            f"{len(self.skipped)} skipped>"
        )

    def _repr_html_(self) -> str:
        counts = self.records["split"].value_counts()
        lines = "".join(f"<tr><td>{split}</td><td>{count}</td></tr>" for split, count in counts.items())
        return (
            f"<b>Prepared set</b> {self.folder.name}: {self.preprocessing.size} px, crop {self.preprocessing.crop}"
            f"<table><tr><th>split</th><th>images</th></tr>{lines}"
            f"<tr><td>skipped</td><td>{len(self.skipped)}</td></tr></table>"
        )


def prepare(
    records: pd.DataFrame,
    store: Store,
    folder: str | os.PathLike,
    preprocessing: Preprocessing | None = None,
    workers: int | None = None,
) -> Prepared:
    """Crop and scale every image once, and write it as JPEG (quality 95) under a name made from its content.

    What is done is kept in a journal: an interrupted run continues where it stopped, and a repeated one does only
    what is new or has changed. Images that cannot be read are left out and listed with the reason.

    Args:
        records: checked records; their splits are saved with the set.
        store: where the images are.
        folder: where the prepared set goes.
        preprocessing: size and crop; the defaults when None.
        workers: threads; one a core when None.

    Returns:
        The prepared set.

    Raises:
        MedicError: the folder cannot be written, the disk is full, or not one image could be read.
    """
    folder = Path(folder)
    preprocessing = preprocessing or Preprocessing()
    settings = json.dumps([_FORMAT, preprocessing.to_dict()], sort_keys=True)
    done = _read_journal(folder / "journal.jsonl", settings)

    def one(name: str) -> dict:
        if name not in store:
            return {"image": name, "reason": "absent", "detail": f"not in {store.location.name}"}
        try:
            entry = {"image": name, "fingerprint": store.fingerprint(name), "settings": settings}
        except ImageError as error:
            return {"image": name, "reason": error.reason, "detail": str(error)}
        known = done.get(name)
        unchanged = known and known["fingerprint"] == entry["fingerprint"]
        if unchanged and (known["file"] is None or (folder / known["file"]).is_file()):
            return known
        try:
            data = store.read(name)
            key = hashlib.blake2b(settings.encode() + data, digest_size=16).hexdigest()
            file = f"images/{key[:2]}/{key}.jpg"
            if not (folder / file).is_file():
                write_bytes(folder / file, _encode(preprocessing.pixels(data)))
        except ImageError as error:
            return entry | {"file": None, "reason": error.reason, "detail": str(error), "new": True}
        return entry | {"file": file, "new": True}

    results = []
    with _writing(folder), contextlib.ExitStack() as stack:
        journal = None
        for entry in each(one, list(records["image"]), title="preparing", workers=workers):
            if entry.pop("new", False):
                if journal is None:
                    journal = stack.enter_context(_open_journal(folder / "journal.jsonl"))
                journal.write(json.dumps(entry) + "\n")
                journal.flush()
            results.append((entry.get("file"), entry.get("reason"), entry.get("detail")))
    return _finish(records, store, folder, preprocessing, results)


def _finish(
    records: pd.DataFrame,
    store: Store,
    folder: Path,
    preprocessing: Preprocessing,
    results: list[tuple[str | None, str | None, str | None]],
) -> Prepared:
    outcome = pd.DataFrame(results, columns=["file", "reason", "detail"], index=records.index)
    kept = outcome["file"].notna()
    if not kept.any():
        first = outcome.iloc[0]
        raise MedicError(
            f"not one of {len(records)} images in {store.location} could be prepared; "
            f"the first: {records['image'].iloc[0]}, {first['reason']} ({first['detail']})"
        )
    tables = {
        "records.csv": records[kept].assign(file=outcome.loc[kept, "file"]),
        "skipped.csv": records[~kept].join(outcome.loc[~kept, ["reason", "detail"]]),
    }
    with _writing(folder):
        # Tables and manifest belong together: a kill in between leaves no set rather than a mixed one.
        (folder / "manifest.json").unlink(missing_ok=True)
    for name, table in tables.items():
        with replacing(folder / name) as temporary:
            table.to_csv(temporary, index=False)
    write_json(
        folder / "manifest.json",
        {
            "format": _FORMAT,
            "preprocessing": preprocessing.to_dict(),
            "source": Path(os.path.relpath(store.location, folder)).as_posix(),
            "synthetic": is_synthetic(store),
            "images": int(kept.sum()),
            "skipped": {reason: int(count) for reason, count in outcome["reason"].value_counts().items()},
        },
    )
    return Prepared.load(folder)


def _encode(pixels: np.ndarray) -> bytes:
    written, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not written:
        raise MedicError("OpenCV could not write a JPEG; this installation of OpenCV lacks the encoder")
    return data.tobytes()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MedicError(
            f"cannot write {folder}: {error.strerror}; free some space and run it again: it goes on"
        ) from error


@contextlib.contextmanager
def _open_journal(path: Path) -> Iterator[TextIO]:
    """Open for appending, behind a line that a kill has cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
    with open(path, "a", encoding="utf-8") as journal:
        yield journal


def _read_journal(path: Path, settings: str) -> dict[str, dict]:
    """What earlier runs did with the same settings, by image; a line cut off by a kill is passed over."""
    if not path.is_file():
        return {}
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["settings"] == settings:
            done[entry["image"]] = entry
    return done
