"""A prepared set with varied copies of its training images written to disk, for programs that cannot vary them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from medic.data.parallel import each
from medic.data.prepare import Prepared, jpeg
from medic.errors import MedicError
from medic.files import replacing, write_bytes, write_json

_FORMAT = 1
"""Counts up when the same settings give other pixels."""


class Varies(Protocol):
    """What ``Augmentation``, ``PublishedAugmentation``, ``Transforms`` and ``Pipeline`` all are."""

    def apply(self, pixels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Vary uint8 (S, S, 3) RGB to uint8 (size, size, 3)."""

    def to_dict(self) -> dict:
        """Plain values, for JSON."""


def write_augmented(
    prepared: Prepared,
    folder: str | os.PathLike,
    augmentation: Varies,
    copies: int,
    seed: int = 0,
    workers: int | None = None,
) -> Prepared:
    """Write a prepared set that holds each training image as it is and, beside it, so many varied copies.

    Validation and test images are copied byte for byte and never varied. A copy keeps the patient, the split and the
    labels of its original. In the records ``copy`` is 0 for every image of the set and 1, 2, ... for the copies, whose
    ``copy_of`` names their original (it is empty for the others) and whose ``image`` is that name with ``#1``, ``#2``,
    ... behind it. The originals come first, in their order. Such names are in no store: evaluation, reports and model
    cards go by ``medic.data.records.originals`` and never see a copy.

    Files are named by what they are made of, so an interrupted run goes on where it stopped and ends with the same
    files, and a repeated one makes only what is new. What is drawn depends on the seed, the image and the copy's
    number, not on the order or the number of threads.

    Args:
        prepared: the set; it is only read.
        folder: where the augmented set goes.
        augmentation: how a copy is varied.
        copies: of each training image, 1 or more.
        seed: of what is drawn.
        workers: threads; one a core when None.

    Returns:
        The augmented set, for ``fit`` with ``Recipe(augmentation=None)``; its store is that of the originals.

    Raises:
        MedicError: there are no training images, fewer than one copy is asked for, the set holds copies already, the
            folder holds another set, a prepared file is gone, or the disk is full.
    """
    folder = Path(folder)
    if copies < 1:
        raise MedicError(f"{copies} copies cannot be written; ask for 1 or more of each training image")
    taken = [column for column in ("copy", "copy_of") if column in prepared.records]
    if taken:
        raise MedicError(
            f"the records of {prepared.folder} have a column {taken[0]!r} already, as a set with varied copies has; "
            "augment the set that holds each image once"
        )
    train = prepared.split("train")
    made = {"format": _FORMAT, "augmentation": augmentation.to_dict(), "copies": copies, "seed": seed}
    made = json.loads(json.dumps(made))
    _claim(folder, prepared, made)

    def keep(file: str) -> None:
        if not (folder / file).is_file():
            write_bytes(folder / file, _read(prepared, file))

    settings, side = [_FORMAT, made["augmentation"], seed], prepared.preprocessing.size

    def vary(item: tuple[str, str, int]) -> str:
        image, file, copy = item
        content = json.dumps([settings, image, copy], sort_keys=True).encode() + _read(prepared, file)
        key = hashlib.blake2b(content, digest_size=16).digest()
        written = f"copies/{key[:1].hex()}/{key.hex()}.jpg"
        if not (folder / written).is_file():
            random = np.random.default_rng(np.frombuffer(key, np.uint32))
            write_bytes(folder / written, jpeg(augmentation.apply(prepared.pixels(file), side, random)))
        return written

    for _ in each(keep, prepared.records["file"].unique(), title="copying", workers=workers):
        pass
    several = [
        train.assign(image=train["image"] + f"#{copy}", copy=copy, copy_of=train["image"])
        for copy in range(1, copies + 1)
    ]
    varied = pd.concat(several, ignore_index=True)
    items = list(zip(varied["copy_of"], varied["file"], varied["copy"].tolist(), strict=True))
    varied["file"] = list(each(vary, items, title="varying", workers=workers))
    _write_tables(folder, prepared, varied, made)
    return Prepared.load(folder)


def _claim(folder: Path, prepared: Prepared, made: dict) -> None:
    """Write down what the folder is going to hold, or refuse it where that is something else."""
    path = folder / "augmented.json"
    remedy = "choose another folder, or delete that one"
    if path.is_file():
        try:
            there = json.loads(path.read_text())
        except ValueError as error:
            raise MedicError(f"{path} is damaged ({error}); {remedy}") from error
        if there != made:
            changed = next(key for key in made if there.get(key) != made[key])
            raise MedicError(
                f"{folder} holds an augmented set made with other settings ({changed} {there.get(changed)} there, "
                f"{made[changed]} here); {remedy}"
            )
    elif (folder / "images").is_dir() or (folder / "manifest.json").is_file():
        what = "the prepared set itself" if os.path.samefile(folder, prepared.folder) else "a prepared set"
        raise MedicError(f"{folder} holds {what}, which an augmented set would overwrite; {remedy}")
    write_json(path, made)


def _write_tables(folder: Path, prepared: Prepared, varied: pd.DataFrame, made: dict) -> None:
    records = pd.concat([prepared.records.assign(copy=0, copy_of=""), varied], ignore_index=True)
    manifest = json.loads((prepared.folder / "manifest.json").read_text())
    # Tables and manifest belong together: a kill in between leaves no set rather than a mixed one.
    (folder / "manifest.json").unlink(missing_ok=True)
    for name, table in (("records.csv", records), ("skipped.csv", prepared.skipped)):
        with replacing(folder / name) as temporary:
            table.to_csv(temporary, index=False)
    write_json(
        folder / "manifest.json",
        manifest
        | {"source": _seen_from(folder, prepared.folder, manifest["source"]), "images": len(records)}
        | {"augmented": made | {"copies_written": len(varied)}},
    )


def _seen_from(folder: Path, earlier: Path, source: str | dict) -> str | dict:
    """The location of the originals, said relative to another folder."""
    if isinstance(source, dict):
        return {key: _seen_from(folder, earlier, part) for key, part in source.items()}
    return Path(os.path.relpath(os.path.normpath(earlier / source), folder)).as_posix()


def _read(prepared: Prepared, file: str) -> bytes:
    try:
        return (prepared.folder / file).read_bytes()
    except OSError as error:
        raise MedicError(
            f"cannot read {file} of the prepared set {prepared.folder}: {error.strerror}; prepare it again"
        ) from error
