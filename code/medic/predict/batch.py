"""Predictions of many images, written to a CSV file as they come: killed and started again, it goes on."""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from medic.data.stores import Store
from medic.errors import MedicError
from medic.files import replacing
from medic.predict import MeanOverFlips, Model, answers, nothing_read
from medic.referral import Referral

BATCH = 8
"""Images that go through the network together, and that are done again after a kill. More is hardly faster where every
core has a batch of its own (38 ms of processor time an image at 8 and at 32 for a ResNet-18), and takes more memory."""


@dataclass(frozen=True)
class Written:
    """What ``predict_to`` has written: how many predictions, what could not be read and why, and the referral rule."""

    predicted: int
    failed: dict[str, str]
    referral: Referral | None


def predict_to(
    model: Model,
    store: Store,
    names: Sequence[str],
    to: str | os.PathLike,
    *,
    at_once: int = 1,
    scheduler: str | None = None,
) -> Written:
    """Classify any number of images into a CSV file, one row an image in the order of the names, in flat memory.

    Until the file is whole, the rows lie beside it in ``<to>.partial``. Interrupted and called again with the same
    model, flips and store, it keeps the rows that begin the list of names; those images must not have changed since.

    Args:
        model: a checkpoint or a bundle, or ``MeanOverFlips`` of one; the column ``tta`` then names the flips.
        store: where the images are.
        names: their names in the store.
        to: the CSV file; what it held is replaced at the end, and not before.
        at_once: batches that go through the network at a time; more than one suits a model whose calls take a thread
            each (``bundle.predictor(threads=1)``).
        scheduler: a Dask cluster that does the work (``medic.data.parallel.each``); its workers read the images and
            the bundle under the same path.

    Raises:
        MedicError: not one image could be read, the disk is full, or another process writes the same file.
    """
    to, names = Path(to), list(names)
    batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    blank = model.predict_pixels(np.zeros((1, *[model.preprocessing.size] * 2, 3), np.uint8))
    flips = "+".join(model.flips) if isinstance(model, MeanOverFlips) else None
    columns = [*blank.to_frame(["x"]), *(["tta"] if flips else []), "error"]
    about = [_identity(model), os.path.abspath(store.location), flips]
    header = f"{json.dumps(about)}\n{_csv(pd.DataFrame(columns=columns), header=True)}".encode()
    if to.is_dir():
        raise MedicError(f"cannot write {to}: it is a folder; name a file")
    partly = to.with_name(f"{to.name}.partial")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(partly, "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise MedicError(f"another process writes {to} just now; wait for it or name another file") from error
            kept, failed = _kept(file, header, batches)
            with contextlib.closing(answers(model, store, batches[kept:], at_once, scheduler)) as parts:
                for part in parts:
                    rows = part.to_frame().assign(tta=flips)
                    file.write(_csv(rows.reindex(columns=columns)).encode())
                    file.flush()
                    failed |= {name: f"{reason}: {detail}" for _, name, reason, detail in part.failed.itertuples()}
        if len(failed) == len(names):
            partly.unlink()
            raise nothing_read(store, names, *failed.values())
        with replacing(to) as whole, open(partly, "rb") as rows, open(whole, "wb") as file:
            rows.readline()
            shutil.copyfileobj(rows, file)
        partly.unlink()
    except OSError as error:
        raise MedicError(
            f"cannot write {to}: {error.strerror or error}; free some space or choose a folder that can be written, "
            "and give the same command again: what is done is kept"
        ) from error
    return Written(len(names) - len(failed), failed, blank.referral)


def _csv(table: pd.DataFrame, header: bool = False) -> str:
    return table.to_csv(index=False, header=header, float_format="%.6f")


def _kept(file: BinaryIO, header: bytes, batches: Sequence[list[str]]) -> tuple[int, dict[str, str]]:
    """How many batches an interrupted call has left whole, and what failed in them; what follows is cut off."""
    file.seek(0)
    if (found := file.read(len(header))) != header:
        if found:
            print(f"starting anew: {file.name} is of another model, folder or option", flush=True)
        file.truncate(0)
        file.write(header)
        return 0, {}
    end, kept, failed = file.tell(), 0, {}
    rows = csv.reader(line.decode() for line in file if line.endswith(b"\n"))
    with contextlib.suppress(csv.Error, UnicodeDecodeError):
        for batch in batches:
            part = list(islice(rows, len(batch)))
            if [row[0] for row in part if row] != batch:
                break
            end, kept = file.tell(), kept + 1
            failed |= {row[0]: row[-1] for row in part if row[-1]}
    file.truncate(end)
    names = sum(map(len, batches))
    print(f"going on: {sum(map(len, batches[:kept]))} of {names} images are done in {file.name}", flush=True)
    return kept, failed


def _identity(model: Model) -> str:
    """A digest of all that a model's answers depend on: a bundle's manifest; a checkpoint's weights and settings."""
    model = model.model if isinstance(model, MeanOverFlips) else model
    if (manifest := getattr(model, "manifest", None)) is not None:
        return manifest.digest
    return hashlib.sha256(json.dumps([model.digest, model.to_dict()], sort_keys=True).encode()).hexdigest()
