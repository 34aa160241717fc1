"""Find listed images by their names, wherever they lie: in folders, in zip files, in several of them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from medic.data.download.sources import repacking
from medic.data.stores import FolderStore, JointStore, Store, ZipStore, is_image_name, open_store
from medic.errors import MedicError

_TARS = (".tar.gz", ".tgz", ".tar")


def open_images(location: Path) -> Store:
    """The store of the images in a folder or a zip file; all zip files with images in a folder belong to it.

    Args:
        location: a zip file, or a folder with images in folders, in one zip file, in several, or in both.

    Returns:
        The folder or the zip file itself where all images are in one; otherwise a joint store, in which a zip file's
        key is its name without the ending. A folder without any image is a store too: all that is listed is absent.

    Raises:
        MedicError: nothing is there; a zip file is damaged, or holds zip files instead of images; there are only
            tar archives (the message holds the command that repacks them); two zip files have the same name.
    """
    if location.is_file() and location.name.lower().endswith(_TARS):
        raise _only_tars(location.parent, [location])
    if not location.is_dir():
        store = open_store(location)
        _refuse_nested({location.name: store})
        return store
    folder = FolderStore(location)
    names = folder.names()
    archives = {name: ZipStore(location / name) for name in names if name.lower().endswith(".zip")}
    parts = {name: archive for name, archive in archives.items() if _has_images(archive)}
    _refuse_nested({name: archive for name, archive in archives.items() if name not in parts})
    if not parts:
        tars = [location / name for name in names if name.lower().endswith(_TARS)]
        if tars and not _has_images(folder):
            raise _only_tars(location, tars)
        return folder
    if len(parts) == 1 and not _has_images(folder):
        return next(iter(parts.values()))
    keys = [PurePosixPath(name).stem for name in parts]
    if len(set(keys)) < len(keys):
        raise MedicError(f"{location} has zip files of the same name ({', '.join(parts)}); give each a name of its own")
    stores = dict(zip(keys, parts.values(), strict=True))
    if _has_images(folder):
        # A zip file of that name would hide the folder's images.
        stores[next(key for key in ("folder", "_folder") if key not in stores)] = folder
    return JointStore(stores)


def _has_images(store: Store) -> bool:
    return any(_is_image(name) for name in store.names())


def _is_image(name: str) -> bool:
    # Archives made on a Mac hold a "._" twin of each file, which is no image.
    return is_image_name(name) and not _file(name).startswith(".")


def _refuse_nested(archives: dict[str, Store]) -> None:
    """Zip files without images, but with zip files inside: a member of a member cannot be read at random."""
    for name, archive in archives.items():
        nested = [inside for inside in archive.names() if inside.lower().endswith(".zip")]
        if nested and not _has_images(archive):
            raise MedicError(
                f"{name} holds {len(nested)} zip files ({nested[0]}, ...) instead of images; unpack {name} once and "
                "leave the zip files inside it packed: they are read as they are"
            )


def _only_tars(folder: Path, tars: list[Path]) -> MedicError:
    pattern = tars[0].as_posix() if len(tars) == 1 else f"{tars[0].parent.as_posix()}/*{''.join(tars[0].suffixes[-2:])}"
    return MedicError(
        f"the images in {folder} are in {len(tars)} tar archives ({tars[0].name}, ...), from which single images "
        "cannot be read; repack them once, without loss, into a zip file:\n  "
        + repacking(f'"{pattern}"', f'"{(folder / "images.zip").as_posix()}"')
    )


def locate(stems: pd.Series, store: Store) -> pd.Series:
    """For each listed image its name in the store.

    Args:
        stems: file names without folder and ending, each once.
        store: where to look, in all folders; hidden files are passed over.

    Returns:
        Names as the store has them; missing where an image is not there.

    Raises:
        MedicError: a listed image is at two places; the message names both.
    """
    places: dict[str, str] = {}
    again: list[tuple[str, str]] = []
    for stored in store.names():
        file = _file(stored)
        if is_image_name(file) and not file.startswith("."):
            name = file.rpartition(".")[0]
            if places.setdefault(name, stored) is not stored:
                again.append((name, stored))
    wanted = set(stems) if again else set()
    for name, stored in again:
        if name in wanted:
            raise MedicError(
                f"{store.location} holds the image {name} at two places, {places[name]} and {stored}; take one away, "
                "or say which folder or zip file is meant (images=..., on the command line --images)"
            )
    return stems.map(places)


def stem(name: str) -> str:
    """A file's name without its folder and without the ending of an image file."""
    file = _file(name)
    return file.rpartition(".")[0] if is_image_name(file) else file


def _file(name: str) -> str:
    return name.rpartition("/")[2]
