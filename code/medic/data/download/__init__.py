"""Fetch the real data sets from their official homes, or say exactly how to get those that need a login."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from medic.data.download.isic import LIMIT, download_isic
from medic.data.download.retrying import HEADERS, TIMEOUT, retry, tell
from medic.data.download.sources import SOURCES, RemoteFile, Source, sources_table
from medic.data.parallel import each
from medic.errors import MedicError
from medic.files import write_bytes, write_text
from medic.task import RETINOPATHY

__all__ = ["MIRROR", "SOURCES", "Source", "download", "fetch", "sources_table"]

MIRROR = "MEDIC_DOWNLOAD_MIRROR"
"""Environment variable: the address of a folder on a web server that holds the same files under the same names."""

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Our name of a split and the one in MedMNIST's archives."""


def download(
    name: str, folder: str | os.PathLike = "data", *, size: int | None = None, limit: int | None = None
) -> Path:
    """Fetch a set and lay it out as its reader (``medic.data.readers``) reads it.

    An archive goes to ``folder/downloads/``, where a copy fetched by hand is used too, once its checksum is right. A
    second call finds the set and fetches nothing.

    Args:
        name: a key of ``SOURCES``.
        folder: the data folder; the set becomes ``folder/retinopathy``, ``folder/digits`` and so on.
        size: edge length in pixels, where a set is published in several; the largest by default.
        limit: number of images, where the set is taken from an archive; 200 by default.

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
        raise MedicError(f"{name} is a finished set, of which nothing is left out; leave the limit away (--limit)")
    if size is not None and size not in source.files:
        sizes = " or ".join(map(str, source.files)) or "one size only"
        raise MedicError(f"{name} is not published at {size} pixels, but at {sizes}; give that, or leave --size away")
    if source.needs_login:
        raise MedicError(_recipe(name, source, folder / "downloads", target))
    tell(f"{source.title}\nLicence: {source.licence}\nCite: {source.citation}")
    if source.query is not None:
        return download_isic(target, limit=LIMIT if limit is None else limit)
    files = source.as_published or (source.files[size or max(source.files)],)
    if _is_there(target, files):
        tell(f"{name} is already in {target}; nothing to do")
        return target
    if target.exists() and any(path.name[0] != "." for path in target.iterdir()):
        raise MedicError(
            f"{target} holds something other than a whole {name}; move it away, or choose another --folder"
        )
    fetched = [fetch(file, folder / "downloads") for file in files]
    making = target.with_name(f".{target.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    try:
        making.mkdir(parents=True)
        if source.as_published:
            for path in fetched:
                shutil.copyfile(path, making / path.name)
        else:
            _unpack_medmnist(fetched[0], making, source, size or max(source.files))
        write_text(making / "SOURCES.md", _sources_page(source, files))
        if target.is_dir():
            target.rmdir()
        os.replace(making, target)
    except OSError as error:
        raise MedicError(f"cannot make {target} ({error.strerror or error}); choose another --folder") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    tell(f"{sum(source.images.values())} images are in {target}")
    return target


def fetch(file: RemoteFile, folder: str | os.PathLike) -> Path:
    """Fetch one file; it gets its name only when its checksum is right. One that is there is checked and used.

    Raises:
        MedicError: it could not be fetched or is not the right file; the message holds the manual way.
    """
    import pooch  # with requests it takes a quarter of a second

    path = Path(folder) / file.name
    by_hand = f"by hand: save {file.url} as {path} (MD5 {file.md5}) and give the same command again"
    try:
        if path.is_file() and pooch.file_hash(str(path), alg="md5") != file.md5:
            raise MedicError(f"{path} is there, but is not the published file; delete it, or {by_hand}")
        pooch.get_logger().setLevel("WARNING")
        downloader = pooch.HTTPDownloader(progressbar=True, headers=HEADERS, timeout=TIMEOUT)
        mirror = os.environ.get(MIRROR)
        url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
        retry(lambda: pooch.retrieve(url, f"md5:{file.md5}", file.name, folder, downloader=downloader))
    except (OSError, ValueError) as error:
        raise MedicError(f"{file.name} was not downloaded ({error}); {by_hand}") from error
    return path


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


def _is_there(target: Path, files: tuple[RemoteFile, ...]) -> bool:
    """Whether the set is at its place, whole: its page names these files, and every listed image is there."""
    page = target / "SOURCES.md"
    if not page.is_file() or not all(file.md5 in page.read_text(encoding="utf-8") for file in files):
        return False
    listed = [name for table in target.glob("*_img.csv") for name in table.read_text(encoding="utf-8").split()]
    wanted = [f"images/{name}.png" for name in listed] or [file.name for file in files]
    return all((target / name).is_file() for name in wanted)


def _unpack_medmnist(archive: Path, target: Path, source: Source, size: int) -> None:
    """Write the archive's arrays as PNG files and one-column tables; the pixels are unchanged."""
    for split, theirs in _SPLITS.items():
        images, labels = _arrays(archive, theirs, source.images[split], size)
        names = [f"retinamnist_{split}_{number:04d}" for number in range(1, len(images) + 1)]
        for name, png in zip(names, each(_png, images, title=f"{split} to PNG"), strict=True):
            write_bytes(target / "images" / f"{name}.png", png)
        write_text(target / f"{split}_img.csv", "".join(f"{name}\n" for name in names))
        write_text(target / f"{split}_label.csv", "".join(f"{label}\n" for label in labels))


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def _arrays(archive: Path, split: str, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, size, size, 3) and labels (N,) of one split, checked."""
    try:
        with np.load(archive, allow_pickle=False) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise MedicError(f"{archive} cannot be read ({error}); delete it and download it again") from error
    fits = images.shape == (count, size, size, 3) and images.dtype == np.uint8 and labels.shape == (count, 1)
    if not fits or not set(np.unique(labels)) <= set(range(len(RETINOPATHY.classes))):
        raise MedicError(
            f"{archive} is not what was expected: {split}_images are {images.dtype} {images.shape}, {split}_labels "
            f"{labels.shape} from {labels.min()} to {labels.max()}; delete it and download it again"
        )
    return images, labels[:, 0]


def _sources_page(source: Source, files: tuple[RemoteFile, ...]) -> str:
    counts = ", ".join(f"{split} {count}" for split, count in source.images.items())
    rows = "\n".join(f"| `{file.name}` | {file.url} | {file.md5} |" for file in files)
    changed = (
        "The files are as published."
        if source.as_published
        else (
            "The arrays were written as PNG files under new names, numbered in the archive's order; the pixels are as "
            "published. Patients are not told apart: keep the publishers' split."
        )
    )
    return f"""# Where these images come from

- Set: {source.title}; {counts} images, the publishers' own split
- Licence: {source.licence}
- Attribution: {source.citation}
- Home: {source.home}

| file | fetched from | MD5 |
| --- | --- | --- |
{rows}

{changed} Not for medical use.
"""
