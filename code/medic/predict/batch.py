"""Predictions of many images, written down as they come: killed and started again, it goes on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medic.data.stores import Store
from medic.errors import MedicError
from medic.files import write_text
from medic.predict import BatchResult, MeanOverFlips, Model, answers, nothing, refuse_empty, unread
from medic.task import OF_EACH_IMAGE, Prediction

BATCH = 8
"""Images that go through the network together, and that are done again after a kill. More is hardly faster where every
core has a batch of its own (38 ms of processor time an image at 8 and at 32 for a ResNet-18), and takes more memory."""
_FORMAT = 3
"""Counts up when the unfinished rows change, or the numbers that the same images give: no file mixes the two."""


def predict_to(
    model: Model,
    store: Store,
    names: Sequence[str],
    to: str | os.PathLike,
    *,
    at_once: int = 1,
) -> BatchResult:
    """Classify any number of images into a CSV file, one row an image in the order of the names.

    Until the file is written, what is done lies beside it in ``<to>.partial``, an image a line. Interrupted and called
    again with the same model, flips and store, it goes on with the images that are not there or could not be read;
    those that it keeps must not have changed since. Pixels are held a few batches at a time, predictions all of them.

    Args:
        model: a checkpoint or a bundle, or ``MeanOverFlips`` of one; the column ``tta`` then names the flips.
        store: where the images are.
        names: their names in the store.
        to: the CSV file; what it held is replaced at the end, and not before.
        at_once: as in ``medic.predict.answers``.

    Returns:
        What was written.

    Raises:
        MedicError: not one image could be read, the disk is full, or another process writes the same file.
    """
    to, partial = Path(to), _partial(to)
    flips = model.flips if isinstance(model, MeanOverFlips) else ()
    about = {"version": _FORMAT, "model": _identity(model), "images": os.path.abspath(store.location), "tta": [*flips]}
    with _writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "a+b") as file:
            _lock(file, to)
            done = _kept(file, about, names)
            left = [name for name in names if name not in done]
            with contextlib.closing(answers(model, store, left, BATCH, at_once)) as parts:
                for part in parts:
                    rows = _rows(part)
                    file.write(b"".join(json.dumps([name, *row]).encode() + b"\n" for name, row in rows.items()))
                    file.flush()
                    done |= rows
        result = _joined(model, names, done)
        if not result.names:
            partial.unlink()
            refuse_empty(store, len(names), list(result.failed.itertuples(index=False, name=None)))
        table = result.to_frame()
        if flips:
            table.insert(table.shape[1] - 1, "tta", "+".join(flips))
        # Python's writer quotes the characters of the line end, and a name may hold a lone carriage return.
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\r\n")
        write_text(to, text.replace("\r\n", "\n"))
        partial.unlink()
    return result


def start_over(to: str | os.PathLike) -> None:
    """Remove what an interrupted ``predict_to`` has left beside a CSV file; the file itself stays."""
    with _writing(Path(to)):
        _partial(Path(to)).unlink(missing_ok=True)


def _partial(to: str | os.PathLike) -> Path:
    to = Path(to)
    if to.is_dir():
        raise MedicError(f"cannot write {to}: it is a folder; name a file")
    return to.with_name(f"{to.name}.partial")


def _lock(file: BinaryIO, to: Path) -> None:
    """Keep others away until the file is closed, if by a kill."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise MedicError(f"another process writes {to} just now; wait for it or name another file") from error
    except OSError:  # a file system without locks
        pass


def _kept(file: BinaryIO, about: dict, names: Sequence[str]) -> dict[str, list]:
    """The rows of an interrupted call that hold, by name; the file is then ready for more, and says what it is of."""
    file.seek(0)
    first, *lines = file.read().split(b"\n")
    earlier = _parsed(first)
    if earlier != about:
        if first:
            known = earlier if isinstance(earlier, dict) else {}
            other = [key for key in about if known.get(key) != about[key]]
            print(f"starting anew: {file.name} is of another {' and '.join(other)}", flush=True)
        file.truncate(0)
        file.write(json.dumps(about).encode() + b"\n")
        return {}
    if lines and lines[-1]:  # a kill has cut the last line
        file.write(b"\n")
    rows = {row[0]: row[1:] for row in map(_parsed, lines) if row}
    kept = {name: rows[name] for name in names if name in rows and rows[name][0] is None}
    print(f"going on: {len(kept)} of {len(names)} images are done in {file.name}", flush=True)
    return kept


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _rows(part: BatchResult) -> dict[str, list]:
    """Of each image, by name: reason and detail of what failed, or None and what the prediction says of it."""
    said = {name: value.tolist() for name in OF_EACH_IMAGE if (value := getattr(part.prediction, name)) is not None}
    rows = {
        name: [None, None, dict(zip(said, values, strict=True))]
        for name, *values in zip(part.names, *said.values(), strict=True)
    }
    return rows | {name: [reason, detail, None] for name, reason, detail in part.failed.itertuples(index=False)}


def _joined(model: Model, names: Sequence[str], done: dict[str, list]) -> BatchResult:
    """All rows in the order of the names, with every bit of their numbers."""
    failed = {place: (name, *done[name][:2]) for place, name in enumerate(names) if done[name][0] is not None}
    read = [name for name in names if done[name][0] is None]
    prediction = nothing(model.task)
    if read:
        values = {key: np.array([done[name][2][key] for name in read], np.float32) for key in done[read[0]][2]}
        prediction = Prediction(model.task, **values)
        if model.task.thresholds or prediction.brightness is not None:
            # Operating point and rule of referral, any prediction has.
            blank = np.zeros((1, model.preprocessing.size, model.preprocessing.size, 3), np.uint8)
            prediction = replace(model.predict_pixels(blank), **values)
    return BatchResult(prediction, read, unread(list(failed.values()), list(failed)))


def _identity(model: Model) -> str:
    """A digest of all that a model's answers depend on: a bundle's manifest; a checkpoint's weights and settings."""
    model = model.model if isinstance(model, MeanOverFlips) else model
    if (manifest := getattr(model, "manifest", None)) is not None:
        return manifest.digest
    return hashlib.sha256(json.dumps([model.digest, model.to_dict()], sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _writing(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MedicError(
            f"cannot write {to}: {error.strerror or error}; free some space or choose a folder that can be written, "
            "and give the same command again: what is done is kept"
        ) from error
