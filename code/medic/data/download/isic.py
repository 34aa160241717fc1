"""Fetch skin lesions from the ISIC Archive (API v2): image by image, each with what one may do with it."""

import hashlib
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import httpx
import jinja2
import pandas as pd
import tenacity
from tqdm import tqdm

from medic.data.images.decode import read_header
from medic.errors import ImageError, MedicError
from medic.files import write_bytes, write_text
from medic.task import SKIN_LESION

API = "https://api.isic-archive.com/api/v2"
# fmt: off
COLUMNS = (
    "isic_id", "benign_malignant", "diagnosis", "diagnosis_confirm_type", "age_approx", "sex", "image_type", "pixelsX",
    "pixelsY", "patient_id", "lesion_id", "copyright_license", "attribution", "sha256",
)
# fmt: on
PAGE = jinja2.Template(
    Path(__file__).with_name("sources.md.j2").read_text(encoding="utf-8"), trim_blocks=True, keep_trailing_newline=True
)
"""Of ``SOURCES.md`` beside what was fetched."""
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}


def download_isic(folder: Path, query: str, *, limit: int = 200) -> None:
    """Fetch benign and malignant lesions, half of each, into ``folder/images``, with ``metadata.csv`` beside them.

    The archive gives its oldest entries first. Called again it goes on: images that are there are not fetched again,
    and a larger ``limit`` adds to them. An image that cannot be had is named, and the next one taken.

    Args:
        folder: the set's own folder; absent, empty, or from an earlier call.
        query: in the archive's query language (https://www.isic-archive.com/data-dictionary), without the class.
        limit: images in all, 2 or more. Where one class has fewer than half, the other makes up for it.

    Raises:
        MedicError: the archive cannot be asked or answers in another shape, has no lesion of a class, or the folder
            cannot be written. The message says what to do by hand.
    """
    rows = []
    try:
        with httpx.Client(follow_redirects=True, timeout=30, headers={"User-Agent": "medic"}) as client:
            searches = [_search(client, query, name.capitalize()) for name in SKIN_LESION.classes]
            in_turn = (entry for pair in zip_longest(*searches) for entry in pair if entry)
            for entry in tqdm(in_turn, total=limit, desc="skin lesions", unit="image"):
                try:
                    rows.append(_row(entry) | {"sha256": _fetch(client, entry, folder / "images")})
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
    finest = (known[level] for level in (f"diagnosis_{depth}" for depth in (5, 4, 3, 2)) if known.get(level))
    known |= {"benign_malignant": known["diagnosis_1"].lower(), "diagnosis": next(finest, None)}
    known |= {"pixelsX": known.get("pixels_x"), "pixelsY": known.get("pixels_y")}
    return {name: " ".join(str("" if known.get(name) is None else known[name]).split()) for name in COLUMNS}


def _fetch(client: httpx.Client, entry: dict, images: Path) -> str:
    """Fetch an entry's image unless it is there; return its SHA-256."""
    if not entry["copyright_license"]:
        raise ImageError("the archive names no licence", "unsupported")
    there = next(images.glob(f"{entry['isic_id']}.*"), None)
    data = there.read_bytes() if there else _get(client, entry["files"]["full"]["url"]).content
    if not there:
        write_bytes(images / (entry["isic_id"] + ENDINGS[read_header(data).format]), data)
    return hashlib.sha256(data).hexdigest()
