"""Fetch the real data sets from their official homes, or say exactly how to get those that need a login."""

from __future__ import annotations

import csv
import os
import shutil
import time
import uuid
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from medic.data.download.fetch import fetch
from medic.data.download.isic import LIMIT, download_isic
from medic.data.download.patience import PATIENCE, Patience, say
from medic.data.download.sources import SOURCES, RemoteFile, Source, sources_table
from medic.data.parallel import each
from medic.errors import MedicError
from medic.files import write_bytes, write_text
from medic.task import RETINOPATHY

__all__ = ["MIRROR", "SOURCES", "Patience", "Source", "convert_retinamnist", "download", "fetch", "sources_table"]

MIRROR = "MEDIC_DOWNLOAD_MIRROR"
"""Environment variable: the address of a folder on a web server that holds the same files under the same names."""

ARCHIVE_SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Our name of a split and the one in MedMNIST's archives."""


def download(
    name: str,
    folder: str | os.PathLike = "data",
    *,
    size: int | None = None,
    limit: int | None = None,
    url: str | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch a set and lay it out as its reader (``medic.data.readers``) reads it.

    An archive goes to ``folder/downloads/``, where a copy fetched by hand is used too, once its checksum is right; a
    set that is read as it is published goes to its place at once. A second call finds the set and does nothing.

    Args:
        name: a key of ``SOURCES``.
        folder: the data folder; the set becomes ``folder/retinopathy``, ``folder/digits`` and so on.
        size: edge length in pixels, where a set is published in several; the largest by default.
        limit: number of images, where the set is taken from an archive; 200 by default.
        url: another address of the same file, for sets of one file, or of the archive's API. The environment variable
            ``MEDIC_DOWNLOAD_MIRROR`` names another server for all files of finished sets.
        patience: waits and limits.

    Returns:
        The folder with the tables and the images.

    Raises:
        MedicError: the name is unknown; the set needs a login (the message is the recipe); the download failed (the
            message holds the manual way); the archive is not what it should be; the target holds something else.
    """
    folder = Path(folder)
    source = _find(name)
    target = folder / source.line
    if limit is not None and source.query is None:
        raise MedicError(
            f"{name} is a finished set, of which nothing is left out: leave limit away (--limit); it is for "
            f"{', '.join(key for key, other in SOURCES.items() if other.query is not None)}"
        )
    if source.needs_login:
        raise MedicError(_recipe(name, source, folder / "downloads", target))
    if source.query is not None:
        return _fetch_selection(name, source, target, size, LIMIT if limit is None else limit, url, patience)
    if source.as_published:
        if size is not None or url is not None:
            raise MedicError(
                f"{name} is published in one size and in {len(source.as_published)} files: leave size and url away, "
                f"and name another server with the environment variable {MIRROR}"
            )
        return _fetch_as_published(name, source, target, patience)
    size = max(source.files) if size is None else size
    if size not in source.files:
        raise MedicError(f"{name} is not published at {size} pixels; choose {' or '.join(map(str, source.files))}")
    file = source.files[size]
    if _is_there(target, source, file):
        say(f"{name} ({size} pixels) is already in {target}; nothing to do")
        return target
    _say_what(source)
    archive = fetch(
        url or _mirrored(file), folder / "downloads" / file.name, file.md5, official=file.url, patience=patience
    )
    convert_retinamnist(archive, target, source, size)
    say(f"{sum(source.images.values())} photographs are in {target}")
    return target


def _say_what(source: Source) -> None:
    say(f"{source.title}\nLicence: {source.licence}\nCite: {source.citation}")


def _fetch_selection(
    name: str, source: Source, target: Path, size: int | None, limit: int, url: str | None, patience: Patience
) -> Path:
    if size is not None:
        raise MedicError(f"{name} comes as the archive has it, in many sizes: leave size away (--size)")
    _say_what(source)
    elsewhere = {} if url is None else {"url": url}
    return download_isic(target, limit=limit, query=source.query, patience=patience, **elsewhere)


def _fetch_as_published(name: str, source: Source, target: Path, patience: Patience) -> Path:
    """Fetch each file of the set into its folder. What is there already is checked by its checksum and used."""
    ours = {file.name for file in source.as_published}
    try:
        there = {path.name.removesuffix(".json").removesuffix(".part") for path in target.iterdir()}
    except FileNotFoundError:
        there = set()
    except OSError as error:
        raise MedicError(f"cannot use {target} as a folder ({error.strerror}); move it away") from error
    if there - ours - {"SOURCES.md"}:
        raise MedicError(
            f"{target} holds something other than {name} ({min(there - ours)}), and it is not mixed with it; move "
            f"{target} away or choose another folder (on the command line: --folder)"
        )
    _say_what(source)
    for file in source.as_published:
        fetch(_mirrored(file), target / file.name, file.md5, official=file.url, patience=patience)
    write_text(target / "SOURCES.md", _as_published_page(source))
    say(f"{sum(source.images.values())} images are in {target}")
    return target


def _find(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    open_sets = [key for key, source in SOURCES.items() if not source.needs_login]
    closed = [key for key, source in SOURCES.items() if source.needs_login]
    lines = {source.line for source in SOURCES.values()}
    start = f"{name} is not one set" if name in lines else f"there is no set called {name!r}"
    raise MedicError(
        f"{start}; without a login there is {', '.join(open_sets)} (medic download {open_sets[0]}), and with a Kaggle "
        f"account {', '.join(closed)} (medic download {closed[0]} shows the steps)"
    )


def _recipe(name: str, source: Source, downloads: Path, target: Path) -> str:
    paths = {"{downloads}": downloads.as_posix(), "{target}": target.as_posix()}
    lines = []
    for number, step in enumerate(source.steps, 1):
        for placeholder, path in paths.items():
            step = step.replace(placeholder, f'"{path}"' if " " in path else path)
        lines.append(f"  {number}. {step}")
    return (
        f"{name} {source.obstacle or f'needs a {source.needs_login} account'}, so it cannot be fetched from here "
        f"({source.home}; licence: {source.licence}); do it by hand:\n" + "\n".join(lines) + "\n"
        f'Then medic.data.readers.{source.line}.read("{target.as_posix()}") reads it, provided that no other set is in '
        "that folder."
    )


def _mirrored(file: RemoteFile) -> str:
    mirror = os.environ.get(MIRROR)
    return f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url


def _is_there(target: Path, source: Source, file: RemoteFile) -> bool:
    """Whether the set is at its place, whole; an error if something else is."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    advice = f"move {target} away or choose another folder (on the command line: --folder)"
    try:
        ours = file.md5 in (target / "SOURCES.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise MedicError(f"{target} holds something other than {file.name}, and it is not overwritten; {advice}")
    for split, count in source.images.items():
        names, labels = (_column(target / f"{split}_{table}.csv") for table in ("img", "label"))
        present = sum((target / "images" / f"{name}.png").is_file() for name in names)
        if not len(names) == len(labels) == present == count:
            raise MedicError(
                f"{target} is no longer whole ({split}: {len(names)} names, {len(labels)} labels, {present} images "
                f"instead of {count}); {advice}, then download again"
            )
    return True


def _column(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [line[0] for line in csv.reader(file) if line]


def convert_retinamnist(archive: str | os.PathLike, target: str | os.PathLike, source: Source, size: int) -> Path:
    """Write RetinaMNIST's arrays as PNG files and one-column tables, whole or not at all.

    The pixels are unchanged. The set does not tell patients, so each image counts as its own; ``SOURCES.md`` beside
    the tables says so, with licence, attribution and address.

    Args:
        archive: the ``.npz`` with ``{train,val,test}_images`` uint8 (N, size, size, 3) RGB and
            ``{train,val,test}_labels`` integers (N, 1) in 0..4.
        target: the folder to make; it may exist if it is empty.
        source: numbers of images, and what ``SOURCES.md`` says.
        size: edge length in pixels.

    Returns:
        ``target``.

    Raises:
        MedicError: an array is missing or has the wrong shape, type, number or labels; the target holds something.
    """
    archive, target = Path(archive), Path(target)
    _remove_leftovers(target)
    making = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        for split, theirs in ARCHIVE_SPLITS.items():
            images, labels = _arrays(archive, theirs, source.images[split], size)
            names = [f"retinamnist_{split}_{number:04d}" for number in range(1, len(images) + 1)]
            pngs = each(_png, images, title=f"{split} to PNG")
            for name, png in zip(names, pngs, strict=True):
                write_bytes(making / "images" / f"{name}.png", png)
            write_text(making / f"{split}_img.csv", "".join(f"{name}\n" for name in names))
            write_text(making / f"{split}_label.csv", "".join(f"{label}\n" for label in labels))
        write_text(making / "SOURCES.md", _sources_page(source, source.files[size], size))
        if target.is_dir():
            target.rmdir()
        os.replace(making, target)
    except OSError as error:
        raise MedicError(
            f"cannot make {target} ({error.strerror or error}); see that the place can be written and holds nothing"
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def _remove_leftovers(target: Path) -> None:
    """Folders of conversions that were killed; a young one may belong to a process that still works."""
    for leftover in target.parent.glob(f".{target.name}.*.part"):
        if leftover.is_dir() and time.time() - leftover.stat().st_mtime > 3600:
            shutil.rmtree(leftover, ignore_errors=True)


def _arrays(archive: Path, split: str, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, size, size, 3) and labels (N,) of one split, checked."""
    wrong = f"{archive} is not the archive that was expected"
    again = "delete it and download it again"
    try:
        with open(archive, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise MedicError(f"{wrong}: cannot read {split}_images and {split}_labels ({error}); {again}") from error
    for name, array, shape in (("images", images, (count, size, size, 3)), ("labels", labels, (count, 1))):
        if array.shape != shape:
            raise MedicError(f"{wrong}: {split}_{name} has the shape {array.shape} instead of {shape}; {again}")
    if images.dtype != np.uint8 or not np.issubdtype(labels.dtype, np.integer):
        raise MedicError(
            f"{wrong}: {split}_images has the type {images.dtype} and {split}_labels {labels.dtype} instead of uint8 "
            f"and integers; {again}"
        )
    grades = len(RETINOPATHY.classes)
    if labels.size and not 0 <= labels.min() <= labels.max() < grades:
        raise MedicError(
            f"{wrong}: {split}_labels reaches from {labels.min()} to {labels.max()} instead of 0 to {grades - 1}; "
            f"{again}"
        )
    return images, labels[:, 0]


def _as_published_page(source: Source) -> str:
    counts = ", ".join(f"{split} {count}" for split, count in source.images.items())
    files = "\n".join(f"| `{file.name}` | {file.url} | {file.md5} |" for file in source.as_published)
    return f"""# Where these images come from

- Set: {source.title}; {counts} images, the publishers' own split
- Licence: {source.licence}
- Attribution: {source.citation}
- Home: {source.home}

| file | fetched from | MD5 |
| --- | --- | --- |
{files}

The files are as published.
"""


def _sources_page(source: Source, file: RemoteFile, size: int) -> str:
    counts = ", ".join(f"{split} {count}" for split, count in source.images.items())
    return f"""# Where these images come from

- Set: {source.title}; {size} x {size} pixels; {counts} images, the publishers' own split
- Licence: {source.licence}
- Attribution: {source.citation}
- Home: {source.home}
- Archive: {file.url}
- MD5 of the archive: {file.md5}

What was changed: the arrays were written as PNG files under new names (`retinamnist_<split>_<number>`, numbered in the
archive's order) and the labels as tables of one column; the pixels are as published.

Patients: the set does not tell which photographs are of the same patient or which eye they show, so each image counts
as a patient of its own. Keep the publishers' split: a new one may put photographs of one patient on both sides.

Grades: {", ".join(f"{grade} {name}" for grade, name in enumerate(RETINOPATHY.classes))}. Not for medical use.
"""
