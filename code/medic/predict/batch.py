"""Predictions of many images, written to a CSV file as they come: killed and started again, it goes on."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from medic.data.stores import Store
from medic.errors import ImageError, MedicError
from medic.files import replacing
from medic.predict import BatchResult, Model, answers, none_read, nothing
from medic.task import Prediction, Task

BATCH = 8
"""Images that go through the network together, and that are done again after a kill. More is hardly faster where every
core has a batch of its own (38 ms of processor time an image at 8 and at 32 for a ResNet-18), and takes more memory."""
DIGITS = "%.6f"
"""How probabilities and grades are written."""
_EXACT = "%.9g"
"""Every float32 by itself: for what is computed with once more."""
_FORMAT = 1
"""Counts up when the rows or the journal change, or the numbers that the same images give: no file mixes the two."""
_OTHER = "of another version of medic, or damaged"
_SHOWN = 20


@dataclass(frozen=True)
class BatchSummary:
    """What ``predict_to`` wrote.

    Attributes:
        path: the CSV file.
        predicted: images with a prediction.
        failed: images without one.
        first_failed: names and reasons (``reason: detail``) of the first twenty of these.
        both_eyes: what mixing in the other eye rests on, in words; empty where it was not asked for.
    """

    path: Path
    predicted: int
    failed: int
    first_failed: tuple[tuple[str, str], ...]
    both_eyes: str = ""


def predict_to(
    model: Model,
    store: Store,
    names: Sequence[str],
    to: str | os.PathLike,
    *,
    both_eyes: float | None = None,
    at_once: int = 1,
) -> BatchSummary:
    """Classify any number of images into a CSV file, one row an image in the order of the names, in flat memory.

    Rows are written as they come to ``to`` with ``.partial`` behind its name, and renamed at the end. Beside it lies
    a journal (``.partial.jsonl``) of what the rows were made from. Interrupted and called again it goes on: with the
    same model, options and store the rows are kept up to the first image that has changed (size, time of change; in a
    zip file size and checksum), come or gone; an image that could not be read stays so until then. The file is, to the
    last byte, that of an uninterrupted call. When nothing can be kept, it says why and starts anew.

    Args:
        model: a checkpoint or a bundle.
        store: where the images are.
        names: their names in the store.
        to: the CSV file; what it held is replaced at the end, and not before.
        both_eyes: weight of the same patient's other eye (``medic.modeling.both_eyes``), for which all predictions are
            held in memory at the end.
        at_once: as in ``medic.predict.answers``.

    Raises:
        MedicError: not one image could be read, the disk is full, another process writes the same file, or the weight
            is out of range.
    """
    to = Path(to)
    if both_eyes is not None:
        # A wrong weight shows now, not at the end.
        _mixed(BatchResult(nothing(model.task), [], pd.DataFrame()), both_eyes)
    settings = {
        "format": _FORMAT,
        "model": _identity(model),
        "both_eyes": both_eyes,
        "images": os.path.abspath(store.location),
        "batch": BATCH,
    }
    digits = DIGITS if both_eyes is None else _EXACT
    seen: dict[str, str] = {}
    with _writing(to), _Unfinished(to, settings) as unfinished:
        done = unfinished.go_on(store, names)
        look = lambda name: seen.update({name: _fingerprint(store, name)})  # noqa: E731
        with contextlib.closing(answers(model, store, names[done:], BATCH, at_once, look)) as parts:
            for part in parts:
                asked = names[done : done + len(part)]
                text = _csv(part.to_frame(), digits, header=done == 0)
                unfinished.add(text, _digest((name, seen.pop(name)) for name in asked))
                done += len(part)
        written = _count(to, unfinished.rows)
        if not written.predicted:
            unfinished.remove()
            first = written.first_failed[0] if written.first_failed else None
            raise none_read(store, len(names), first is not None and f"{first[0]}, {first[1].partition(': ')[2]}")
        if both_eyes is None:
            os.replace(unfinished.rows, to)
        else:
            # Where the operating point lies, any prediction says; when all rows were there already, none was made.
            size = model.preprocessing.size
            thresholds = model.predict_pixels(np.zeros((1, size, size, 3), np.uint8)).thresholds
            mixed, said = _mixed(_read_back(model.task, thresholds, unfinished.rows), both_eyes)
            written = replace(written, both_eyes=said)
            with replacing(to) as temporary:
                temporary.write_bytes(_csv(mixed.to_frame(), DIGITS, header=True))
        unfinished.remove()
    return written


def start_over(to: str | os.PathLike) -> None:
    """Remove what an interrupted ``predict_to`` has left beside a CSV file; the file itself stays.

    Raises:
        MedicError: another process writes there, or the folder cannot be written.
    """
    to = Path(to)
    if to.parent.is_dir():
        with _writing(to), _Unfinished(to, {}) as unfinished:
            unfinished.remove()


class _Unfinished:
    """The rows that are done, in a file beside the target, and the journal that says what they were made from.

    The journal's first line is the settings, each further one a batch: its number of images, its rows' bytes and their
    CRC-32, and a digest of its images' names and fingerprints. A line follows its rows, so that rows without a line,
    and a line that a kill has cut, are done again.
    """

    def __init__(self, to: Path, settings: dict):
        if to.is_dir():
            raise MedicError(f"cannot write {to}: it is a folder; name a file")
        self.rows = to.with_name(f"{to.name}.partial")
        self._to, self._path = to, to.with_name(f"{to.name}.partial.jsonl")
        self._settings = settings
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Unfinished:
        self._to.parent.mkdir(parents=True, exist_ok=True)
        with self._stack as stack:
            self._journal = stack.enter_context(open(self._path, "a+b"))
            self._lock()
            self._rows = stack.enter_context(open(self.rows, "a+b"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _lock(self) -> None:
        """Keep others away until the journal is closed, and be it by a kill."""
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MedicError(f"another process writes {self._to} just now; wait for it or name another file") from error
        except OSError:  # a file system without locks
            pass

    def go_on(self, store: Store, names: Sequence[str]) -> int:
        """Keep what is done and still holds, cut off the rest, and say so; how many images are kept."""
        header = _line(self._settings)
        self._journal.seek(0)
        self._rows.seek(0)
        first = self._journal.readline()
        done, ends, line = 0, (len(first), 0), b""
        if first != header:
            if os.path.getsize(self.rows):
                print(f"starting anew: {self.rows} is {_difference(first, self._settings)}", flush=True)
            ends = (0, 0)
        else:
            while line := self._journal.readline():
                count, size = self._holds(line, store, names[done : done + BATCH])
                if not count:
                    break
                done, ends = done + count, (ends[0] + len(line), ends[1] + size)
        if done or line.endswith(b"\n"):
            again = "; the rest is done again, for images have changed, come or gone" if line.endswith(b"\n") else ""
            print(f"going on: {done} of {len(names)} images are done in {self.rows}{again}", flush=True)
        for file, end in zip((self._journal, self._rows), ends, strict=True):
            file.truncate(end)
            file.seek(end)
        if first != header:
            self._journal.write(header)
            self._journal.flush()
        return done

    def _holds(self, line: bytes, store: Store, names: Sequence[str]) -> tuple[int, int]:
        """Images and bytes of a batch whose rows are whole and whose images are these; zeros for any other."""
        try:
            batch = json.loads(line)
        except ValueError:
            return 0, 0
        if not names or batch["of"] != _digest((name, _fingerprint(store, name)) for name in names):
            return 0, 0
        rows = self._rows.read(batch["bytes"])
        return (len(names), len(rows)) if zlib.crc32(rows) == batch["crc32"] else (0, 0)

    def add(self, rows: bytes, digest: str) -> None:
        """Write down a batch; it is there for any later process when this returns.

        Raises:
            OSError: the disk is full.
        """
        batch = {"of": digest, "bytes": len(rows), "crc32": zlib.crc32(rows)}
        for file, text in ((self._rows, rows), (self._journal, _line(batch))):
            file.write(text)
            file.flush()

    def remove(self) -> None:
        """Leave nothing behind."""
        for path in (self.rows, self._path):
            path.unlink(missing_ok=True)


def _line(values: dict) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _difference(first: bytes, settings: dict) -> str:
    """In words, how the settings in a journal's first line differ from these."""
    words = {"model": "of another model", "images": "of other images", "both_eyes": "with another --both-eyes"}
    try:
        earlier = json.loads(first)
        return ", ".join(said for key, said in words.items() if earlier[key] != settings[key]) or _OTHER
    except (ValueError, KeyError, TypeError):
        return _OTHER


def _identity(model: Model) -> str:
    """A digest of all that a model's answers depend on: a bundle's manifest; a checkpoint's weights and settings."""
    if (manifest := getattr(model, "manifest", None)) is not None:
        return manifest.digest
    return hashlib.sha256(json.dumps([model.digest, model.to_dict()], sort_keys=True).encode()).hexdigest()


def _fingerprint(store: Store, name: str) -> str:
    """What changes when an image does, or is no longer there."""
    try:
        return store.fingerprint(name) if name in store else ""
    except ImageError:
        return ""


def _digest(images: Iterable[tuple[str, str]]) -> str:
    """Of names and fingerprints, sixteen bytes as hexadecimal digits."""
    return hashlib.blake2b(json.dumps(list(images)).encode(), digest_size=16).hexdigest()


def _csv(table: pd.DataFrame, number: str, header: bool) -> bytes:
    """A table as CSV, its floats in a format such as ``%.6f``; a missing value is an empty cell.

    A cell with a comma, a quotation mark or a line end of any kind is quoted, so that every name comes back as it was.
    """
    lines = [list(table)] if header else []
    for row in table.itertuples(index=False, name=None):
        lines.append(["" if pd.isna(cell) else number % cell if isinstance(cell, float) else cell for cell in row])
    written = []
    for line in lines:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerow(line)  # which is why a lone \r is quoted, too
        written.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(written).encode()


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _count(to: Path, rows: Path) -> BatchSummary:
    """What is in the rows, read line by line."""
    predicted, failed = 0, 0
    shown: list[tuple[str, str]] = []
    for row in _rows(rows):
        if not row["error"]:
            predicted += 1
            continue
        failed += 1
        if len(shown) < _SHOWN:
            shown.append((row["image"], row["error"]))
    return BatchSummary(to, predicted, failed, tuple(shown))


def _read_back(task: Task, thresholds: tuple[float, ...] | None, path: Path) -> BatchResult:
    """The predictions in the rows, with every bit of their numbers."""
    names, failed, numbers = [], {}, array("f")
    columns = [*(["grade_continuous"] if task.kind == "ordinal" else []), *(f"p_{name}" for name in task.classes)]
    for place, row in enumerate(_rows(path)):
        if row["error"]:
            failed[place] = (row["image"], *row["error"].split(": ", 1))
        else:
            names.append(row["image"])
            numbers.extend(float(row[column]) for column in columns)
    values = np.frombuffer(numbers, np.float32).reshape(-1, len(columns))
    probabilities = np.ascontiguousarray(values[:, -len(task.classes) :])
    grade = values[:, 0].copy() if task.kind == "ordinal" else None
    rest = pd.DataFrame(failed.values(), index=list(failed), columns=["image", "reason", "detail"])
    return BatchResult(Prediction(task, probabilities, grade, thresholds), names, rest)


def _mixed(predicted: BatchResult, weight: float) -> tuple[BatchResult, str]:
    """The predictions with both eyes of a patient counting, and a sentence on how many have both."""
    from medic.data.readers.retinopathy import eyes
    from medic.modeling.both_eyes import combine_eyes, pairs

    records = eyes(predicted.names)
    mixed = replace(predicted, prediction=combine_eyes(predicted.prediction, records, weight))
    both = f"{pairs(records)} of {records['patient'].nunique()} patients have both eyes"
    return mixed, f"{both}; each counts {weight:g} for the other"


@contextlib.contextmanager
def _writing(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MedicError(
            f"cannot write {to}: {error.strerror or error}; free some space or choose a folder that can be written, "
            "and give the same command again: what is done is kept"
        ) from error
