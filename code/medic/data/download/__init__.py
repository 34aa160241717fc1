"""The real data sets: fetched from their official homes, or exactly how to get those that need a login."""

import hashlib
import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import httpx
import jinja2
import numpy as np
import pandas as pd
import tenacity
from PIL import Image
from tqdm import tqdm

from medic.data.images.decode import read_header
from medic.data.records import SPLITS
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_bytes, write_text
from medic.task import SKIN_LESION

SOURCES = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))
"""The sets by name; the file says what each key means."""
HTTP = {"progressbar": True, "timeout": 30, "headers": {"User-Agent": "medic", "Accept-Encoding": "identity"}}
API = "https://api.isic-archive.com/api/v2"
COLUMNS = ["isic_id", "benign_malignant", "diagnosis", "diagnosis_confirm_type", "age_approx", "sex", "image_type"]
COLUMNS += ["pixelsX", "pixelsY", "patient_id", "lesion_id", "copyright_license", "attribution", "sha256"]
PAGE = jinja2.Template(
    Path(__file__).with_name("sources.md.j2").read_text(encoding="utf-8"), trim_blocks=True, keep_trailing_newline=True
)
"""Of ``SOURCES.md`` beside what was fetched."""
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}


def sources_table() -> pd.DataFrame:
    """Return the known sets by name: ``title``, images by split (``Int64``), ``licence``, ``login``, ``home``."""
    table = pd.DataFrame([source | source.get("images", {}) for source in SOURCES.values()], index=list(SOURCES))
    table = table.fillna({"login": "none"}).astype(dict.fromkeys(SPLITS, "Int64"))
    return table[["title", *SPLITS, "licence", "login", "home"]].rename_axis("name")


def download(name: str, folder: str | os.PathLike = "data", *, limit: int | None = None) -> Path:
    """Fetch a set and lay it out as its reader (``medic.data.readers``) reads it.

    An archive goes to ``folder/downloads/``, where a copy fetched by hand is used too, once its checksum is right. A
    second call finds the set and fetches nothing. Images of the ISIC Archive come one by one, in equal parts benign and
    malignant: a call that was interrupted goes on, and a larger ``limit`` adds to what is there.

    Args:
        name: a key of ``SOURCES``.
        folder: the data folder; the set becomes ``folder/retinopathy``, ``folder/digits`` and so on.
        limit: number of images, 2 or more, where the set is taken from an archive; 200 by default.

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
        _download_isic(target, query, 200 if limit is None else limit)
    elif ours:
        print(f"{name} is already in {target}; nothing to do", file=sys.stderr)
    else:
        paths = [_fetch_file(file, folder / "downloads") for file in source["files"]]
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


def _fetch_file(file: dict[str, str], folder: Path) -> Path:
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


# Skin lesions from the ISIC Archive (API v2), image by image, each with what one may do with it


def _download_isic(folder: Path, query: str, limit: int) -> None:
    """Fetch benign and malignant lesions, half of each, into ``folder/images``, with ``metadata.csv`` beside them.

    The archive gives its oldest entries first. An image that cannot be had is named, and the next one taken. Where one
    class has fewer than half, the other makes up for it.
    """
    rows = []
    try:
        with httpx.Client(follow_redirects=True, timeout=30, headers={"User-Agent": "medic"}) as client:
            searches = [_search(client, query, name.capitalize()) for name in SKIN_LESION.classes]
            in_turn = (entry for pair in zip_longest(*searches) for entry in pair if entry)
            for entry in tqdm(in_turn, total=limit, desc="skin lesions", unit="image"):
                try:
                    rows.append(_row(entry) | {"sha256": _fetch_image(client, entry, folder / "images")})
                except (ImageError, httpx.HTTPStatusError) as error:
                    if isinstance(error, httpx.HTTPStatusError) and _may_pass(error):
                        raise
                    tqdm.write(f"{entry['isic_id']} is left out: {error}", file=sys.stderr)
                if len(rows) >= limit:
                    break
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise MedicError(
            f"the skin lesions were not all downloaded ({type(error).__name__}: {error}); the same command goes on. By "
            f"hand: pip install isic-cli, then isic image download --search '{query}' --limit {limit} {folder}"
        ) from error
    finally:
        if rows:
            write_text(folder / "SOURCES.md", PAGE.render(count=len(rows), query=query))
            write_text(folder / "metadata.csv", pd.DataFrame(rows).sort_values("isic_id").to_csv(index=False))
    if absent := set(SKIN_LESION.classes) - {row["benign_malignant"] for row in rows}:
        raise MedicError(f"no {absent.pop()} lesion for the query {query!r} could be had; ask for more, or otherwise")
    if len(rows) < limit:
        tqdm.write(f"the archive has {len(rows)} lesions for the query {query!r}, not {limit}", file=sys.stderr)


def _search(client: httpx.Client, query: str, diagnosis: str) -> Iterator[dict]:
    page = httpx.URL(f"{API}/images/search/", params={"query": f"({query}) AND diagnosis_1:{diagnosis}", "limit": 100})
    while page:
        answer = _get(client, page).json()
        yield from answer["results"]
        page = answer["next"]


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.is_server_error
    return isinstance(error, httpx.TransportError)


@tenacity.retry(
    retry=tenacity.retry_if_exception(_may_pass),
    stop=tenacity.stop_after_attempt(6),
    wait=tenacity.wait_exponential(multiplier=2, max=60),
    before_sleep=lambda state: tqdm.write(f"{state.outcome.exception()}; trying again", file=sys.stderr),
    reraise=True,
)
def _get(client: httpx.Client, url: httpx.URL | str) -> httpx.Response:
    return client.get(url).raise_for_status()


def _row(entry: dict) -> dict[str, str]:
    """What ``metadata.csv`` says of an entry, as text; empty where the archive does not tell."""
    known = {**entry["metadata"]["acquisition"], **entry["metadata"]["clinical"], **entry}
    finest = filter(None, (known.get(f"diagnosis_{depth}") for depth in (5, 4, 3, 2)))
    known |= {"benign_malignant": known["diagnosis_1"].lower(), "diagnosis": next(finest, None)}
    known |= {"pixelsX": known.get("pixels_x"), "pixelsY": known.get("pixels_y")}
    return {name: " ".join(str("" if known.get(name) is None else known[name]).split()) for name in COLUMNS}


def _fetch_image(client: httpx.Client, entry: dict, images: Path) -> str:
    """Fetch an entry's image unless it is there; return its SHA-256."""
    if not entry["copyright_license"]:
        raise ImageError("the archive names no licence", "unsupported")
    if there := next(images.glob(f"{entry['isic_id']}.*"), None):
        return hashlib.sha256(there.read_bytes()).hexdigest()
    data = _get(client, entry["files"]["full"]["url"]).content
    write_bytes(images / (entry["isic_id"] + ENDINGS[read_header(data).format]), data)
    return hashlib.sha256(data).hexdigest()
