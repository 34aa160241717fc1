"""What a preparation has finished, image by image, on disk: an interrupted one goes on from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from medic.data.images.decode import decode, used_bits
from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import each
from medic.data.records import read_records
from medic.data.split import refuse_crossing
from medic.data.stores import Store, is_synthetic, location_from, open_from
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_bytes, write_json


class Entry(NamedTuple):
    """One finished image: its name, the fingerprint of its original, and its file or why there is none."""

    image: str
    fingerprint: str
    file: str | None
    reason: str | None = None
    detail: str | None = None


class Journal:
    """A file of one JSON object a line, to which finished images are added.

    Of what the file holds, only sixteen bytes an image are kept in memory (a hash of the name, the line's place), so
    that a million images cost 16 MB; a line is read again when its image is asked for. Of several lines about one
    image the last counts; a line cut off by a kill, and lines of other settings, are passed over.

    Args:
        path: the file; it need not exist, and is written only when something is added.
        settings: what the work depends on; each line carries a short digest of it.
    """

    def __init__(self, path: Path, settings: str):
        self._path = path
        self._settings = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
        self._lock = threading.Lock()
        self._earlier = open(path, "rb") if path.is_file() else None  # noqa: SIM115 (closed by __exit__)
        self._added = None
        self._hashes, self._places = self._index()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._earlier, self._added):
            if file is not None:
                file.close()

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        hashes, places, place = array("q"), array("q"), 0
        for line in self._earlier or ():
            if (entry := self._parse(line)) is not None:
                hashes.append(hash(entry.image))
                places.append(place)
            place += len(line)
        order = np.argsort(np.frombuffer(hashes, np.int64), kind="stable")
        return np.frombuffer(hashes, np.int64)[order], np.frombuffer(places, np.int64)[order]

    def _parse(self, line: bytes) -> Entry | None:
        if self._settings.encode() not in line:
            return None
        try:
            values = json.loads(line)
            return Entry(**values) if values.pop("settings") == self._settings else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def find(self, image: str) -> Entry | None:
        """What earlier runs with these settings did with an image. Safe in threads."""
        last = int(np.searchsorted(self._hashes, hash(image), side="right")) - 1
        if last < 0 or self._hashes[last] != hash(image):
            return None
        with self._lock:
            self._earlier.seek(int(self._places[last]))
            line = self._earlier.readline()
        entry = self._parse(line)
        return entry if entry is not None and entry.image == image else None

    def add(self, entry: Entry) -> None:
        """Write down a finished image; it is on disk for any later process when this returns.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        if self._added is None:
            self._added = self._open()
        values = {"image": entry.image, "fingerprint": entry.fingerprint, "settings": self._settings}
        values["file"] = entry.file
        if entry.reason is not None:
            values |= {"reason": entry.reason, "detail": entry.detail}
        self._added.write(json.dumps(values) + "\n")
        self._added.flush()

    def _open(self):
        """Open for appending, behind a line that a kill has cut off."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
        return open(self._path, "a", encoding="utf-8")


JPEG_QUALITY = 95
_FORMAT = 2
"""Counts up when the layout of a set changes, or the pixels that the same settings give: no set mixes the two."""
_KEY_BYTES = 16
_ROWS_AT_ONCE = 20_000


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
                    f"the prepared set {folder} has format {manifest['format']}, not {_FORMAT}: another version of "
                    "medic made it, maybe with other pixels; prepare anew"
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
        return open_from(self.folder, source)

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
        MedicError: a patient is in more than one split, the folder cannot be written, the disk is full, or not one
            image could be read.
    """
    folder = Path(folder)
    refuse_crossing(records)
    preprocessing = _with_bits(preprocessing or Preprocessing(), records, store)
    settings = json.dumps([_FORMAT, preprocessing.to_dict()], sort_keys=True)

    def one(name: str) -> tuple[Entry, bool]:
        """What became of an image, and whether that is news to the journal."""
        if name not in store:
            return Entry(name, "", None, "absent", f"not in {store.location.name}"), False
        try:
            fingerprint = store.fingerprint(name)
        except ImageError as error:
            return Entry(name, "", None, error.reason, str(error)), False
        known = journal.find(name)
        unchanged = known is not None and known.fingerprint == fingerprint
        if unchanged and (known.file is None or os.path.isfile(folder / known.file)):
            return known, False
        try:
            data = store.read(name)
            file = _file(hashlib.blake2b(settings.encode() + data, digest_size=_KEY_BYTES).digest())
            if not os.path.isfile(folder / file):
                write_bytes(folder / file, jpeg(preprocessing.pixels(data)))
        except ImageError as error:
            return Entry(name, fingerprint, None, error.reason, str(error)), True
        return Entry(name, fingerprint, file), True

    outcomes = _Outcomes(bytearray(), {})
    with _writing(folder), Journal(folder / "journal.jsonl", settings) as journal:
        for entry, new in each(one, list(records["image"]), title="preparing", workers=workers):
            if new:
                journal.add(entry)
            outcomes.append(entry)
    return _finish(records, store, folder, preprocessing, outcomes)


def _with_bits(preprocessing: Preprocessing, records: pd.DataFrame, store: Store) -> Preprocessing:
    """The preprocessing with the bits that the set's 16-bit images use, which is said."""

    def bits(name: str) -> int:
        try:
            return used_bits(store.read(name)) or 0 if name in store else 0
        except ImageError:
            return 0  # said when it is prepared

    names = [name for name in records["image"] if not name.lower().endswith((".jpg", ".jpeg", ".bmp", ".dcm"))]
    largest = max(each(bits, names, title="looking for images of 16 bits"), default=0)
    if preprocessing.bits is not None or not 9 <= largest < 16:
        return preprocessing
    print(f"the images of 16 bits use {largest} of them: they are scaled by that")
    return replace(preprocessing, bits=largest)


class _Outcomes(NamedTuple):
    """What became of each row, in a few bytes a row: the keys one after the other, and the faults by row."""

    keys: bytearray
    faults: dict[int, tuple[str, str]]

    def append(self, entry: Entry) -> None:
        if entry.file is None:
            self.faults[len(self.keys) // _KEY_BYTES] = (sys.intern(entry.reason), entry.detail)
            self.keys.extend(bytes(_KEY_BYTES))
        else:
            self.keys.extend(bytes.fromhex(Path(entry.file).stem))

    def file(self, row: int) -> str:
        return _file(bytes(self.keys[row * _KEY_BYTES : (row + 1) * _KEY_BYTES]))


def _file(key: bytes) -> str:
    return f"images/{key[:1].hex()}/{key.hex()}.jpg"


def _finish(
    records: pd.DataFrame, store: Store, folder: Path, preprocessing: Preprocessing, outcomes: _Outcomes
) -> Prepared:
    faults = outcomes.faults
    if len(faults) == len(records):
        reason, detail = faults[0]
        raise MedicError(
            f"not one of {len(records)} images in {store.location} could be prepared; "
            f"the first: {records['image'].iloc[0]}, {reason} ({detail})"
        )
    with _writing(folder):
        # Tables and manifest belong together: a kill in between leaves no set rather than a mixed one.
        (folder / "manifest.json").unlink(missing_ok=True)
    with _writing(folder):
        _write_tables(records, folder, outcomes)
    write_json(
        folder / "manifest.json",
        {
            "format": _FORMAT,
            "preprocessing": preprocessing.to_dict(),
            "source": location_from(folder, store),
            "synthetic": is_synthetic(store),
            "images": len(records) - len(faults),
            "skipped": dict(Counter(reason for reason, _ in faults.values()).most_common()),
        },
    )
    return Prepared.load(folder)


def _write_tables(records: pd.DataFrame, folder: Path, outcomes: _Outcomes) -> None:
    """Write ``records.csv`` and ``skipped.csv``, some rows at a time: no second table of a million rows in memory."""
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(replacing(folder / name)) for name in ("records.csv", "skipped.csv")]
        kept, skipped = (stack.enter_context(open(path, "w", newline="", encoding="utf-8")) for path in paths)
        for start in range(0, len(records), _ROWS_AT_ONCE):
            rows = range(start, min(start + _ROWS_AT_ONCE, len(records)))
            good = [row for row in rows if row not in outcomes.faults]
            faulty = [row for row in rows if row in outcomes.faults]
            faults = [outcomes.faults[row] for row in faulty]
            records.iloc[good].assign(file=[outcomes.file(row) for row in good]).to_csv(
                kept, index=False, header=start == 0
            )
            records.iloc[faulty].assign(
                reason=[reason for reason, _ in faults], detail=[detail for _, detail in faults]
            ).to_csv(skipped, index=False, header=start == 0)


def jpeg(pixels: np.ndarray) -> bytes:
    """A prepared image, uint8 (S, S, 3) RGB, as the file that is kept of it."""
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
