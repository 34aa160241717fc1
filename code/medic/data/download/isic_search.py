"""The ISIC Archive's paged search, API v2: which lesions there are, and what is known of each.

The answers are those of the archive's own source, https://github.com/ImageMarkup/isic (``isic/core/api/image.py``):
``{"count", "next", "previous", "results"}`` with at most 100 results a page, the oldest entries first.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice, zip_longest

import httpx

from medic.data.download.patience import GiveUp, Patience, TryAgain, insist, progress, refuse_busy, say
from medic.task import SKIN_LESION

API = "https://api.isic-archive.com/api/v2"
PAGE = 100
"""Entries a page; the archive gives no more."""

TERMS = {
    "benign": ("diagnosis_1:Benign", "benign_malignant:benign"),
    "malignant": ("diagnosis_1:Malignant", "benign_malignant:malignant"),
}
"""How the archive's query language asks for a class: today's taxonomy, and the field of former years."""

COLUMNS = (
    "isic_id",
    "benign_malignant",
    "diagnosis",
    "diagnosis_confirm_type",
    "age_approx",
    "sex",
    "image_type",
    "pixelsX",
    "pixelsY",
    "patient_id",
    "lesion_id",
    "copyright_license",
    "attribution",
)
"""What is kept of an entry; ``metadata.csv`` adds the file's ``sha256``."""


class NotUnderstood(GiveUp):
    """The archive cannot read the query."""


class Withdrawn(GiveUp):
    """The archive does not have this image, or no longer; that says nothing about the others."""


@dataclass(frozen=True)
class Archive:
    """Whom to ask, and how patiently. ``url``: of the API, without a slash at its end."""

    client: httpx.Client
    url: str
    patience: Patience


@dataclass(frozen=True)
class Lesion:
    """One image of the archive.

    Attributes:
        row: its values of ``COLUMNS``, as text; empty where the archive does not tell.
        size: bytes of the image file, as far as known.
        url: where the file is, for an hour or so: the address is signed. None asks the archive anew.
    """

    row: dict[str, str]
    size: int
    url: str | None = None

    @property
    def isic_id(self) -> str:
        """Its name in the archive, such as ``ISIC_0000001``."""
        return self.row["isic_id"]

    @property
    def label(self) -> str:
        """``benign``, ``malignant``, or empty where the entry says neither or both."""
        return self.row["benign_malignant"]


@dataclass(frozen=True)
class Selection:
    """The lesions that are to be fetched, and what they were asked for with: ``isic.json`` in the set's folder."""

    api: str
    query: str
    collections: tuple[int, ...]
    limit: int
    date: str
    lesions: tuple[Lesion, ...]

    def to_dict(self) -> dict:
        """Plain values, for JSON, without the addresses, which expire."""
        return asdict(replace(self, lesions=tuple(replace(lesion, url=None) for lesion in self.lesions)))

    @classmethod
    def from_dict(cls, values: dict) -> Selection:
        """The selection that ``to_dict`` wrote."""
        lesions = tuple(Lesion(**lesion) for lesion in values["lesions"])
        return cls(**values | {"collections": tuple(values["collections"]), "lesions": lesions})


def select(archive: Archive, query: str, collections: tuple[int, ...], limit: int) -> Selection:
    """Search for benign and malignant lesions, half of each; where one has fewer, the other makes up for it.

    The archive gives its oldest entries first, and so the same ones each time as long as it only grows.

    Args:
        archive: whom to ask.
        query: in the archive's query language; empty for all images.
        collections: only images of these collections of the archive, by number; empty for all.
        limit: images in all, 2 or more.

    Returns:
        The selection, classes in turn, so that a part of it has both.

    Raises:
        GiveUp: the archive cannot be asked, does not understand, answers in another shape, or has none of a class.
    """
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    found: dict[str, list[Lesion]] = {}
    with progress("searching", 0, limit, "image") as bar:
        searches = {
            label: _counted(_matching(archive, query, collections, label, min(PAGE, limit), seen, left_out), bar)
            for label in SKIN_LESION.classes
        }
        for label, share in zip(searches, (limit - limit // 2, limit // 2), strict=True):
            found[label] = list(islice(searches[label], share))
            if not found[label]:
                where = f" in the collections {', '.join(map(str, collections))}" if collections else ""
                raise GiveUp(
                    f"the archive has no {label} lesion for the query {query!r}{where}, and both classes are needed; "
                    "ask for something else, or"
                )
        for label in searches:
            found[label] += islice(searches[label], limit - sum(map(len, found.values())))
    for reason, count in left_out.items():
        say(f"left out of the archive's entries: {count} ({reason})")
    in_turn = [lesion for pair in zip_longest(*found.values()) for lesion in pair if lesion is not None]
    if len(in_turn) < limit:
        say(f"the archive has no more than {len(in_turn)} lesions for the query {query!r}")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Selection(archive.url, query, collections, limit, today, tuple(in_turn))


def find(archive: Archive, isic_id: str) -> Lesion:
    """Ask for one entry, with a fresh address of its file.

    Raises:
        GiveUp: the archive cannot be asked; ``Withdrawn`` where it no longer has it.
    """
    return _lesion(_ask(archive, httpx.URL(f"{archive.url}/images/{isic_id}/")))


def _counted(lesions: Iterator[Lesion], bar) -> Iterator[Lesion]:
    for lesion in lesions:
        bar.update(1)
        yield lesion


def _matching(
    archive: Archive,
    query: str,
    collections: tuple[int, ...],
    label: str,
    page: int,
    seen: set[str],
    left_out: Counter[str],
) -> Iterator[Lesion]:
    """Usable lesions of one class, each once, page by page as they are wanted."""
    refused: list[NotUnderstood] = []
    for term in TERMS[label]:
        try:
            for lesion in _results(archive, _joined(query, term), collections, page):
                if lesion.isic_id in seen:
                    continue
                seen.add(lesion.isic_id)
                if lesion.label != label:
                    left_out[f"found as {label}, but the entry does not say so, or says both"] += 1
                elif not lesion.row["copyright_license"]:
                    left_out["no licence is stated"] += 1
                else:
                    yield lesion
        except NotUnderstood as error:
            refused.append(error)
    # Of the two fields the archive may know only one, as today's does; of a wrong query it understands neither.
    if len(refused) == len(TERMS[label]):
        raise refused[0]


def _joined(query: str, term: str) -> str:
    if not query:
        return term
    return f"({query}) AND {term}" if " OR " in query else f"{query} AND {term}"


def _results(archive: Archive, query: str, collections: tuple[int, ...], page: int) -> Iterator[Lesion]:
    asked = {"query": query, "collections": ",".join(map(str, collections)), "limit": str(page)}
    home = httpx.URL(f"{archive.url}/images/search/", params={key: value for key, value in asked.items() if value})
    url, before = home, {home}
    while True:
        answer = _ask(archive, url)
        results, following = answer.get("results"), answer.get("next")
        if not isinstance(results, list) or not isinstance(following, str | None):
            raise _odd(archive, "no list 'results', or no address 'next'")
        yield from map(_lesion, results)
        if following is None or not results:
            return
        url = _next(home, following)
        if url in before:
            raise _odd(archive, "a page that names itself or an earlier one as the next")
        before.add(url)


def _next(home: httpx.URL, following: str) -> httpx.URL:
    """The next page's address, which must be on the same server."""
    try:
        url = home.join(following)
    except (httpx.InvalidURL, ValueError) as error:
        raise GiveUp(f"{home.host} names {following!r} as the next page, which is no address;") from error
    if (url.host, url.port) != (home.host, home.port):
        raise GiveUp(
            f"{home.host} names a page of another server as the next one ({url.netloc.decode()}), and that is not "
            "asked;"
        )
    return url.copy_with(scheme=home.scheme)


def _ask(archive: Archive, url: httpx.URL) -> dict:
    """The JSON object at an address, tried patiently."""
    return insist(lambda: _answer(archive, url), archive.patience, url.host)[0]


def _answer(archive: Archive, url: httpx.URL) -> dict:
    response = archive.client.get(url, follow_redirects=False)
    refuse_busy(response)
    if response.status_code == 400:
        raise NotUnderstood(
            f"{url.host} does not understand the query {url.params.get('query')!r} ({_start(response.text)}); its "
            "fields are listed at https://www.isic-archive.com/data-dictionary;"
        )
    if response.is_redirect:
        raise GiveUp(f"{url} has moved to {response.headers['location']}; give that address as url, or")
    if response.status_code != 200:
        kind = Withdrawn if response.status_code in (404, 410) else GiveUp
        raise kind(f"{url} answered {response.status_code} {response.reason_phrase};")
    try:
        answer = response.json()
    except ValueError as error:
        raise TryAgain(f"{url.host} sent no JSON but {_start(response.text)}") from error
    if not isinstance(answer, dict):
        raise _odd(archive, f"{type(answer).__name__} where an object was expected")
    return answer


def _start(text: str) -> str:
    """The first words of an answer, to be shown."""
    return repr(" ".join(text[:300].split())[:60])


def _odd(archive: Archive, what: str) -> GiveUp:
    return GiveUp(f"{archive.url} answers in another shape than that of API v2 ({what}), which may have changed;")


def _lesion(entry: object) -> Lesion:
    try:
        full, metadata = entry["files"]["full"], entry["metadata"]
        known = {**metadata.get("acquisition", {}), **metadata.get("clinical", {})}
        isic_id, url, size = entry["isic_id"], full["url"], full["size"]
        if not re.fullmatch(r"ISIC_\d+", isic_id) or not isinstance(url, str) or not isinstance(size, int):
            raise ValueError
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GiveUp(
            f"an entry of the archive has another shape than that of API v2 ({_start(repr(entry))}); the API may have "
            "changed;"
        ) from error
    labels = {str(known[key]).lower() for key in ("diagnosis_1", "benign_malignant") if known.get(key)}
    diagnoses = [f"diagnosis_{depth}" for depth in (5, 4, 3, 2)]
    row = {column: _text(known.get(column)) for column in COLUMNS} | {
        "isic_id": isic_id,
        "benign_malignant": labels.pop() if len(labels) == 1 and labels < set(SKIN_LESION.classes) else "",
        "diagnosis": next((_text(known[key]) for key in chain(diagnoses, ["diagnosis"]) if known.get(key)), ""),
        "pixelsX": _text(known.get("pixels_x")),
        "pixelsY": _text(known.get("pixels_y")),
        "copyright_license": _text(entry.get("copyright_license")),
        "attribution": _text(entry.get("attribution")),
    }
    return Lesion(row, size, url)


def _text(value: object) -> str:
    """One line of text; empty for what is not known."""
    return "" if value is None else " ".join(str(value).split())
