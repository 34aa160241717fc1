"""Fetch one file over HTTP: go on where it stopped, check it, and try again politely."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import httpx

from medic.data.download.patience import (
    HEADERS,
    PATIENCE,
    GiveUp,
    Patience,
    TryAgain,
    insist,
    progress,
    refuse_busy,
    say,
)
from medic.errors import MedicError
from medic.files import write_json


def fetch(
    url: str,
    path: str | os.PathLike,
    md5: str,
    *,
    official: str | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch one file; it gets its name only when its checksum is right.

    What has arrived is kept in ``<path>.part`` when the connection or the process ends, and the next try or call goes
    on from there (HTTP ``Range`` with ``If-Range``). A server that cannot do that, or a file that has changed since,
    is fetched from its beginning. The answers 408, 429 and 5xx, time-outs and cut connections are tried again with
    growing waits, at least as long as ``Retry-After`` asks.

    Args:
        url: where to fetch it from.
        path: its final name. A file that is already there is checked and used.
        md5: the checksum, 32 hexadecimal digits.
        official: the address named in the manual way, where ``url`` is a mirror.
        patience: waits and limits.

    Returns:
        ``path``.

    Raises:
        MedicError: it could not be fetched or is not the right file; the message holds the manual way.
    """
    path = Path(path)
    part, note = _part(path), _note(path)
    by_hand = (
        f"by hand: get {official or url} with a browser, save it as {path} (MD5 {md5}) and give the same command "
        "again, which checks and uses it"
    )
    try:
        if path.exists():
            found = _md5(path)
            if found != md5:
                raise GiveUp(f"{path} is already there but has the MD5 {found} instead of {md5}; delete it, then")
            say(f"{path} is already there and its checksum is right")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with httpx.Client(follow_redirects=True, timeout=patience.timeout, headers=HEADERS) as client:
            pieced = part.exists()
            pieced |= _insist(client, url, path, patience) > 1
            found = _md5(part)
            if found != md5 and pieced:
                say(f"the pieces of {path.name} do not fit together (MD5 {found}); starting over")
                part.unlink()
                _insist(client, url, path, patience)
                found = _md5(part)
        if found != md5:
            length = part.stat().st_size
            part.unlink()
            raise GiveUp(f"what {url} sent ({length} bytes) has the MD5 {found} instead of {md5} and was deleted;")
        os.replace(part, path)
        note.unlink(missing_ok=True)
    except GiveUp as error:
        raise MedicError(f"{path.name} was not downloaded: {error} {by_hand}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MedicError(f"{path.name} was not downloaded: {url} cannot be asked ({error}); {by_hand}") from error
    except OSError as error:
        raise MedicError(
            f"{path.name} was not downloaded: cannot write {error.filename or path} ({error.strerror or error}); free "
            "some space or choose a folder that can be written and run it again, it goes on where it stopped; "
            f"{by_hand}"
        ) from error
    return path


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _note(path: Path) -> Path:
    """Beside the part: from where, how long in all, and the validator that If-Range needs."""
    return path.with_name(path.name + ".part.json")


def _insist(client: httpx.Client, url: str, path: Path, patience: Patience) -> int:
    """Try until the part file is whole; give back the number of tries."""
    part = _part(path)
    return insist(lambda: _attempt(client, url, path), patience, httpx.URL(url).host, lambda: _size(part))[1]


def _attempt(client: httpx.Client, url: str, path: Path) -> None:
    """One request, which appends to the part file or begins it anew."""
    part, note = _part(path), _note(path)
    have, known = _size(part), _read_note(note)
    if have and known.get("total") == have:
        return
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        # Validators are one server's own: another's would only force a new beginning; the checksum judges the sum.
        if known.get("url") == url and known.get("validator"):
            headers["If-Range"] = known["validator"]
    with client.stream("GET", url, headers=headers) as response:
        status, host = response.status_code, response.url.host
        refuse_busy(response)
        if status == 416 and have:
            if response.headers.get("content-range") == f"bytes */{have}":
                return
            part.unlink()
            raise TryAgain(f"{host} has no bytes after {have}, so the kept part is not of this file; starting over")
        if status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
            total = int(span[2]) if span and span[2] != "*" else None
            if not span or int(span[1]) != have or (total and known.get("total") not in (None, total)):
                part.unlink(missing_ok=True)
                raise TryAgain(f"{host} sent a part that does not fit to the {have} bytes kept; starting over")
            say(f"going on after {have} bytes of {path.name}")
        elif status == 200:
            if have:
                say(f"{host} sends {path.name} from its beginning; the {have} bytes kept are dropped")
            have, total = 0, _number(response.headers.get("content-length"))
            # The part file outlives the process on purpose, so it is written in place; the checksum guards its name.
            part.write_bytes(b"")
            write_json(note, {"url": url, "total": total, "validator": _validator(response)})
        else:
            raise GiveUp(f"{url} answered {status} {response.reason_phrase};")
        with open(part, "ab") as file, progress(path.name, have, total) as bar:
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise TryAgain(f"{host} sent {_size(part)} of {total} bytes")


def _validator(response: httpx.Response) -> str | None:
    """What If-Range may carry: a strong ETag, else the date of change."""
    tag = response.headers.get("etag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("last-modified")


def _read_note(note: Path) -> dict:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
