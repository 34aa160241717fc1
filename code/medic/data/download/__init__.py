"""The real data sets: fetched from their official homes, or exactly how to get those that need a login."""

import os
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medic.data.download.isic import PAGE, download_isic
from medic.data.records import SPLITS
from medic.errors import MedicError
from medic.files import replacing, write_text

HTTP = {"progressbar": True, "timeout": 30, "headers": {"User-Agent": "medic", "Accept-Encoding": "identity"}}


SOURCES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))
"""The sets by name; the file says what each key means."""


def sources_table() -> pd.DataFrame:
    """Return the known sets by name: ``title``, images by split (``Int64``), ``licence``, ``login``, ``home``."""
    table = pd.DataFrame([source | source.get("images", {}) for source in SOURCES.values()], index=list(SOURCES))
    table = table.fillna({"login": "none"}).astype(dict.fromkeys(SPLITS, "Int64"))
    return table[["title", *SPLITS, "licence", "login", "home"]].rename_axis("name")


def download(name: str, folder: str | os.PathLike = "data", *, limit: int | None = None) -> Path:
    """Fetch a set and lay it out as its reader (``medic.data.readers``) reads it.

    An archive goes to ``folder/downloads/``, where a copy fetched by hand is used too, once its checksum is right. A
    second call finds the set and fetches nothing.

    Args:
        name: a key of ``SOURCES``.
        folder: the data folder; the set becomes ``folder/retinopathy``, ``folder/digits`` and so on.
        limit: number of images, where the set is taken from an archive; 200 by default.

    Returns:
        The folder with the tables and the images.

    Raises:
        MedicError: the name is unknown; the set needs a login (the message is the recipe); the download failed (the
            message holds the manual way); the target holds something else, or cannot be written.
    """
    if name not in SOURCES:
        raise MedicError(f"there is no set called {name!r}; there is {', '.join(SOURCES)} (medic download NAME)")
    source, folder = SOURCES[name], Path(folder)
    target, query = folder / source["reader"], source.get("query")
    if limit is not None and query is None:
        raise MedicError(f"{name} is a finished set, of which nothing is left out; leave the limit away (--limit)")
    if "login" in source:
        raise MedicError(_recipe(name, source, folder / "downloads", target))
    print("{title}\nLicence: {licence}\nCite: {citation}".format(**source), file=sys.stderr)
    page = target / "SOURCES.md"
    ours = page.is_file() and (query or source["files"][0]["md5"]) in page.read_text(encoding="utf-8")
    # Images of the archive without its page are from a download that was killed.
    if not ours and {path.name for path in target.glob("*")} - ({"images"} if query else set()):
        raise MedicError(f"{target} holds something other than {name}; move it away, or choose another --folder")
    if query:
        download_isic(target, query, limit=200 if limit is None else limit)
    elif ours:
        print(f"{name} is already in {target}; nothing to do", file=sys.stderr)
    else:
        paths = [_fetch(file, folder / "downloads") for file in source["files"]]
        if target.is_dir():
            target.rmdir()
        with replacing(target) as making:
            making.mkdir()
            for path in paths:
                _unpack_medmnist(path, making) if path.suffix == ".npz" else shutil.copy(path, making)
            write_text(making / "SOURCES.md", PAGE.render(source))
    return target


def _recipe(name: str, source: dict, downloads: Path, target: Path) -> str:
    steps = "".join(f"  {number}. {step}\n" for number, step in enumerate(source["steps"], 1))
    for placeholder, path in {"{downloads}": downloads, "{target}": target}.items():
        steps = steps.replace(placeholder, shlex.quote(path.as_posix()))
    why = source.get("obstacle", f"needs a {source['login']} account")
    return (
        f"{name} {why}, so it cannot be fetched from here ({source['home']}; licence: {source['licence']}); do it by "
        f'hand:\n{steps}Then medic.data.readers.{source["reader"]}.read("{target.as_posix()}") reads it, provided that '
        "no other set is in that folder."
    )


def _fetch(file: dict[str, str], folder: Path) -> Path:
    """Fetch one file, if it is not there with the right checksum."""
    import pooch  # with requests it takes a quarter of a second

    name, url, md5 = (file[key] for key in ("name", "url", "md5"))
    try:
        home = pooch.create(folder, "", registry={name: f"md5:{md5}"}, urls={name: url}, retry_if_failed=5)
        return Path(home.fetch(name, downloader=pooch.HTTPDownloader(**HTTP)))
    except (OSError, ValueError) as error:
        raise MedicError(
            f"{name} was not downloaded ({error}); by hand: save {url} as {folder / name} (MD5 {md5}) and give the "
            "same command again"
        ) from error


def _unpack_medmnist(archive: Path, folder: Path) -> None:
    """Write the archive's arrays as PNG files and one-column tables; the pixels are unchanged."""
    (folder / "images").mkdir()
    with np.load(archive) as arrays:
        for split, published in {"train": "train", "validation": "val", "test": "test"}.items():
            labels = arrays[f"{published}_labels"][:, 0]
            names = [f"retinamnist_{split}_{number:04d}" for number in range(1, len(labels) + 1)]
            for name, pixels in zip(names, arrays[f"{published}_images"], strict=True):
                Image.fromarray(pixels).save(folder / "images" / f"{name}.png", compress_level=3)
            pd.Series(names).to_csv(folder / f"{split}_img.csv", header=False, index=False)
            pd.Series(labels).to_csv(folder / f"{split}_label.csv", header=False, index=False)
