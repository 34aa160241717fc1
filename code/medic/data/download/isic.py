"""Fetch skin lesions from the ISIC Archive (API v2): image by image, each with what one may do with it."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
from tqdm import tqdm

from medic.data.download.retrying import HEADERS, TIMEOUT, BadAnswerError, retry, tell
from medic.data.download.sources import SOURCES
from medic.data.images.decode import read_header
from medic.errors import ImageError, MedicError
from medic.files import write_bytes, write_text
from medic.task import SKIN_LESION

API = "https://api.isic-archive.com/api/v2"
LIMIT = 200
"""Images that are fetched if no number is given."""
IN_A_ROW = 3
"""Images that fail one after the other at which it is the server that fails, and the download ends."""
# How the archive asks for a class: by today's taxonomy, and by the field of former years, which it may not know.
_FIELDS = (("diagnosis_1", str.capitalize), ("benign_malignant", str))
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}
_TEXTS = {
    "CC-0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-NC": "https://creativecommons.org/licenses/by-nc/4.0/",
}
# fmt: off
COLUMNS = (
    "isic_id", "benign_malignant", "diagnosis", "diagnosis_confirm_type", "age_approx", "sex", "image_type", "pixelsX",
    "pixelsY", "patient_id", "lesion_id", "copyright_license", "attribution", "sha256",
)
# fmt: on


def download_isic(
    folder: Path, *, limit: int = LIMIT, query: str = SOURCES["skin_lesion"].query, url: str = API
) -> Path:
    """Fetch benign and malignant lesions, half of each, into ``folder/images``, with ``metadata.csv`` beside them.

    The archive gives its oldest entries first. Called again it goes on: images that are there with the archive's size
    are not fetched again, and a larger ``limit`` adds to them. An image that cannot be had is named and left out.

    Args:
        folder: the set's own folder; absent, empty, or from an earlier call.
        limit: images in all, 2 or more. Where one class has fewer than half, the other makes up for it.
        query: in the archive's query language (https://www.isic-archive.com/data-dictionary), without the class.
        url: the address of the API.

    Returns:
        ``folder``, with ``images/``, ``metadata.csv``, ``SOURCES.md``, ``attribution.txt`` and ``licenses/``.

    Raises:
        MedicError: the archive cannot be asked or answers in another shape, has no lesion of a class, or the folder
            cannot be written or holds something else. The message says what to do by hand.
    """
    if limit < 2:
        raise MedicError(f"{limit} images cannot be of two classes; ask for 2 or more (--limit)")
    there = {path.name for path in folder.iterdir() if path.name[0] != "."} if folder.is_dir() else set()
    if there and not (folder / "attribution.txt").is_file() and there != {"images"}:
        raise MedicError(f"{folder} holds something other than a download of the ISIC Archive; choose another --folder")
    rows, missing, failed = [], {}, 0
    try:
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers=HEADERS) as client:
            entries = _select(client, url, query, limit)
            try:
                for entry in tqdm(entries, desc="skin lesions", unit="image", mininterval=10):
                    try:
                        rows.append(_row(entry) | {"sha256": _fetch(client, url, entry, folder)})
                        failed = 0
                    except (httpx.HTTPError, BadAnswerError) as error:
                        missing[entry["isic_id"]] = str(error)
                        tell(f"{entry['isic_id']} is left out: {error}")
                        failed += getattr(getattr(error, "response", None), "status_code", 0) not in (404, 410)
                        if failed == IN_A_ROW:
                            raise
            finally:
                if rows:
                    _write_papers(folder, rows, missing, query)
    except (httpx.HTTPError, httpx.InvalidURL, BadAnswerError, KeyError, TypeError, AttributeError) as error:
        raise MedicError(
            f"the skin lesions were not all downloaded ({error or type(error).__name__}); the same command goes on. By "
            f"hand: pip install isic-cli, then isic image download --search '{query}' --limit {limit} {folder}"
        ) from error
    absent = [label for label in SKIN_LESION.classes if all(row["benign_malignant"] != label for row in rows)]
    if absent:
        raise MedicError(f"no {absent[0]} lesion for the query {query!r} could be had; try later, or another query")
    strays = len(list((folder / "images").glob("ISIC_*"))) - len(rows)
    tell(f"{len(rows)} images are in {folder}; {strays} more images there are not in metadata.csv")
    return folder


def _select(client: httpx.Client, url: str, query: str, limit: int) -> list[dict]:
    """The entries of both classes, in turn, so that a part of them has both."""
    left_out: Counter[str] = Counter()
    searches = {label: _search(client, url, query, label, left_out) for label in SKIN_LESION.classes}
    shares = zip(searches.items(), (limit - limit // 2, limit // 2), strict=True)
    found = {label: list(islice(search, share)) for (label, search), share in shares}
    for label, search in searches.items():
        found[label] += islice(search, limit - sum(map(len, found.values())))
    for reason, count in left_out.items():
        tell(f"{count} entries are left out: {reason}")
    entries = [entry for label in found for entry in found[label]]
    if len(entries) < limit:
        tell(f"the archive has {len(entries)} lesions for the query {query!r}, not {limit}")
    ranks = {entry["isic_id"]: rank for label in found for rank, entry in enumerate(found[label])}
    return sorted(entries, key=lambda entry: ranks[entry["isic_id"]])


def _search(client: httpx.Client, url: str, query: str, label: str, left_out: Counter[str]) -> Iterator[dict]:
    """Usable entries of one class, each once, page by page as they are wanted."""
    seen, refused = set(), 0
    for field, spelt in _FIELDS:
        page = httpx.URL(
            f"{url}/images/search/", params={"query": f"({query}) AND {field}:{spelt(label)}", "limit": 100}
        )
        while page is not None:
            try:
                answer = _ask(client, page)
            except httpx.HTTPStatusError as error:
                refused += error.response.status_code == 400
                if error.response.status_code != 400 or refused == len(_FIELDS):
                    raise
                break
            for entry in answer["results"]:
                row = _row(entry)
                if row["benign_malignant"] != label or not row["copyright_license"]:
                    left_out[f"found as {label}, without that diagnosis or without a licence"] += 1
                elif entry["isic_id"] not in seen:
                    yield entry
                seen.add(entry["isic_id"])
            page = httpx.URL(answer["next"]) if answer["next"] else None
            if page is not None and page.host != httpx.URL(url).host:
                raise BadAnswerError(f"{url} names a page of another server as the next one ({page.host})")


def _ask(client: httpx.Client, url: httpx.URL | str) -> dict:
    def attempt() -> dict:
        response = client.get(url).raise_for_status()
        try:
            return response.json()
        except ValueError as error:
            raise BadAnswerError(f"{response.url.host} sent no JSON") from error

    return retry(attempt)


def _row(entry: dict) -> dict[str, str]:
    """What ``metadata.csv`` says of an entry, as text; empty where the archive does not tell."""
    known = {**entry["metadata"].get("acquisition", {}), **entry["metadata"].get("clinical", {}), **entry}
    known |= {"pixelsX": known.get("pixels_x"), "pixelsY": known.get("pixels_y")}
    labels = {str(known[field]).lower() for field, _ in _FIELDS if known.get(field)}
    finest = [known.get(f"diagnosis_{depth}") for depth in (5, 4, 3, 2)] + [known.get("diagnosis")]
    known |= {"benign_malignant": labels.pop() if len(labels) == 1 else "", "diagnosis": next(filter(None, finest), "")}
    return {name: " ".join(str("" if known.get(name) is None else known[name]).split()) for name in COLUMNS}


def _fetch(client: httpx.Client, url: str, entry: dict, folder: Path) -> str:
    """The SHA-256 of an entry's image, which is fetched unless it is there with the right size."""
    name, size = entry["isic_id"], entry["files"]["full"]["size"]
    if not re.fullmatch(r"ISIC_\d+", name):
        raise BadAnswerError(f"{name!r} is no name of the archive's")
    for path in (folder / "images").glob(f"{name}.*"):
        if path.stat().st_size == size:
            return hashlib.sha256(path.read_bytes()).hexdigest()

    def attempt() -> tuple[bytes, str]:
        response = client.get(entry["files"]["full"]["url"])
        if response.status_code in (400, 401, 403):  # the address is signed, and has expired
            response = client.get(_ask(client, f"{url}/images/{name}/")["files"]["full"]["url"])
        data = response.raise_for_status().content
        try:
            return data, _ENDINGS[read_header(data).format]
        except (ImageError, KeyError) as error:
            raise BadAnswerError(f"what arrived for {name} cannot be used ({error})") from error

    data, ending = retry(attempt)
    if len(data) != size:
        tell(f"{name} has {len(data)} bytes, and the archive says {size}; it is whole, and kept")
    write_bytes(folder / "images" / f"{name}{ending}", data)
    return hashlib.sha256(data).hexdigest()


def _write_papers(folder: Path, rows: list[dict[str, str]], missing: dict[str, str], query: str) -> None:
    rows = sorted(rows, key=lambda row: row["isic_id"])
    licences = Counter(row["copyright_license"] for row in rows)
    for name in licences:
        text = _TEXTS.get(name, "https://www.isic-archive.com names this licence; see there for its text")
        write_text(folder / "licenses" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.txt", f"{name}\n{text}\n")
    whose = Counter(f"{row['attribution'] or 'no name given'} ({row['copyright_license']})" for row in rows)
    write_text(folder / "attribution.txt", "".join(f"{name}: {count} images\n" for name, count in whose.most_common()))
    absent = "".join(f"- not here: {name}, {reason}\n" for name, reason in sorted(missing.items()))
    counts = ", ".join(f"{count} {name}" for name, count in sorted(licences.items()))
    write_text(
        folder / "SOURCES.md",
        f"""# Where these images come from

- Set: {len(rows)} images of the ISIC Archive (https://www.isic-archive.com), the oldest entries for `{query}`
- Licences: {counts}; that of each image stands in `metadata.csv`, and whom to name in `attribution.txt`
- Classes: as many of each as asked for, not as often as in life, and perhaps from different hospitals
{absent}
Not for medical use.
""",
    )
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "metadata.csv", table.getvalue())
