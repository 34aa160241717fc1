"""Fetch one file over HTTP: go on where it stopped, check it, and try again politely."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm import tqdm

from medic.errors import MedicError
from medic.files import write_json


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and when to stop asking.

    Attributes:
        attempts: tries in a row that bring less than ``progress`` new bytes, before it ends.
        first_wait: seconds before the second try; each further wait is twice as long.
        longest_wait: seconds beyond which waits do not grow.
        longest_request: seconds a server may ask for (``Retry-After``); for more, it ends and says when to come back.
        timeout: seconds without an answer, or without a byte, after which a try has failed.
        progress: bytes that make a try count as a success even if it was cut.
        sleep: what waits.
    """

    attempts: int = 6
    first_wait: float = 2.0
    longest_wait: float = 60.0
    longest_request: float = 300.0
    timeout: float = 30.0
    progress: int = 2**20
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()


class _TryAgain(Exception):
    """This try failed, another may not. ``after``: seconds the server asked for."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


class _GiveUp(Exception):
    """No further try will help."""


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
                raise _GiveUp(f"{path} is already there but has the MD5 {found} instead of {md5}; delete it, then")
            say(f"{path} is already there and its checksum is right")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        headers = {"User-Agent": "medic", "Accept-Encoding": "identity"}
        with httpx.Client(follow_redirects=True, timeout=patience.timeout, headers=headers) as client:
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
            raise _GiveUp(f"what {url} sent ({length} bytes) has the MD5 {found} instead of {md5} and was deleted;")
        os.replace(part, path)
        note.unlink(missing_ok=True)
    except _GiveUp as error:
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
    failures, tries, furthest = 0, 0, _size(_part(path))
    while True:
        tries += 1
        try:
            _attempt(client, url, path)
            return tries
        except _TryAgain as error:
            reason, after = str(error), error.after
        except httpx.UnsupportedProtocol:
            raise
        except httpx.TransportError as error:
            reason, after = f"{httpx.URL(url).host}: {error or type(error).__name__}", 0.0
        # Only bytes never had before count: a server that always starts at zero and always breaks off must end too.
        if _size(_part(path)) >= furthest + patience.progress:
            failures = 0
        furthest = max(furthest, _size(_part(path)))
        failures += 1
        if failures >= patience.attempts:
            kept = f", {furthest} bytes are kept for the next time" if _size(_part(path)) else ""
            raise _GiveUp(f"{reason} (try {failures} of {patience.attempts}{kept}); run it again later, or")
        if after > patience.longest_request:
            raise _GiveUp(f"{reason} and asks to come back in {after:.0f} s; run it again then, or")
        wait = max(after, min(patience.longest_wait, patience.first_wait * 2 ** (failures - 1)))
        say(f"{reason}; waiting {wait:.0f} s, then try {failures + 1} of {patience.attempts}")
        patience.sleep(wait)


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
        if status in (408, 429) or status >= 500:
            raise _TryAgain(f"{host} answered {status} {response.reason_phrase}", _retry_after(response))
        if status == 416 and have:
            if response.headers.get("content-range") == f"bytes */{have}":
                return
            part.unlink()
            raise _TryAgain(f"{host} has no bytes after {have}, so the kept part is not of this file; starting over")
        if status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
            total = int(span[2]) if span and span[2] != "*" else None
            if not span or int(span[1]) != have or (total and known.get("total") not in (None, total)):
                part.unlink(missing_ok=True)
                raise _TryAgain(f"{host} sent a part that does not fit to the {have} bytes kept; starting over")
            say(f"going on after {have} bytes of {path.name}")
        elif status == 200:
            if have:
                say(f"{host} sends {path.name} from its beginning; the {have} bytes kept are dropped")
            have, total = 0, _number(response.headers.get("content-length"))
            # The part file outlives the process on purpose, so it is written in place; the checksum guards its name.
            part.write_bytes(b"")
            write_json(note, {"url": url, "total": total, "validator": _validator(response)})
        else:
            raise _GiveUp(f"{url} answered {status} {response.reason_phrase};")
        with open(part, "ab") as file, _bar(path.name, have, total) as bar:
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise _TryAgain(f"{host} sent {_size(part)} of {total} bytes")


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait, given as a number or as a date (RFC 9110, 10.2.3); 0 without."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


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


class _Lines:
    """A progress bar for logs: each state on a line of its own, instead of one line overwritten."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def _bar(title: str, have: int, total: int | None) -> tqdm:
    watched = sys.stderr.isatty()
    return tqdm(
        desc=title,
        initial=have,
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        mininterval=0.2 if watched else 10,
        ascii=not watched,
        file=sys.stderr if watched else _Lines(),
    )


def say(text: str) -> None:
    """Tell the person at the terminal, above a progress bar if one is there."""
    tqdm.write(text, file=sys.stderr)
