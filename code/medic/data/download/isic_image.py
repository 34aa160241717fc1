"""Fetch one image file of the ISIC Archive, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import httpx

from medic.data.download.isic_search import Archive, Lesion, Withdrawn, find
from medic.data.download.patience import GiveUp, TryAgain, insist, refuse_busy, say
from medic.data.images.decode import read_header
from medic.errors import ImageError

MAX_BYTES = 2**28
"""A quarter of a gigabyte: more than any image of the archive has."""

ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}


def fetch_image(archive: Archive, lesion: Lesion) -> tuple[bytes, str]:
    """The bytes of a lesion's image, whole and readable, and the ending for its file's name.

    The file's address is signed and expires: where it is refused, or none is known, the archive is asked for a new one.
    Busy servers, cut connections and answers that are no image are tried again.

    Raises:
        GiveUp: it cannot be had; ``Withdrawn`` where the archive no longer has it, ``LeaveAlone`` where the server
            wants to be left alone for long.
    """
    address = [lesion.url]
    try:
        host = httpx.URL(lesion.url or archive.url).host
        return insist(lambda: _attempt(archive, lesion, address), archive.patience, host)[0]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise GiveUp(f"the address that the archive gives for {lesion.isic_id} cannot be asked ({error});") from error


def _attempt(archive: Archive, lesion: Lesion, address: list[str | None]) -> tuple[bytes, str]:
    """One try. ``address`` holds the signed address, as long as it is good; it is asked for anew when it is not."""
    name, fresh = lesion.isic_id, address[0] is None
    while True:
        if address[0] is None:
            address[0] = find(archive, name).url
        with archive.client.stream("GET", address[0]) as response:
            refuse_busy(response)
            status, host = f"{response.status_code} {response.reason_phrase}", response.url.host
            if response.status_code in (400, 401, 403):
                address[0] = None
                if fresh:
                    raise TryAgain(f"{host} answered {status} for {name}, although its address is new")
                fresh = True
                continue
            if response.status_code in (404, 410):
                raise Withdrawn(f"{host} answered {status} for {name};")
            if response.status_code != 200:
                raise GiveUp(f"{host} answered {status} for {name};")
            data = _body(response, name)
            stated = response.headers.get("content-length")
        return data, _checked(data, lesion, host, confirmed=stated == str(len(data)))


def _body(response: httpx.Response, name: str) -> bytes:
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > MAX_BYTES:
            raise GiveUp(f"{response.url.host} sends more than {MAX_BYTES} bytes for {name};")
    return bytes(data)


def _checked(data: bytes, lesion: Lesion, host: str, confirmed: bool) -> str:
    """The ending for these bytes' file name, if they are the image.

    The archive states the size of the file that it was given, and others have found files handed out that differ from
    it. So another size is taken if the file server stated it (``confirmed``) and the image has its end, and it is said.
    """
    try:
        header = read_header(data)
    except ImageError as error:
        raise TryAgain(f"what {host} sent for {lesion.isic_id} cannot be used: {error}") from error
    if header.format not in ENDINGS:
        raise GiveUp(f"{lesion.isic_id} is of the format {header.format}, which is not taken from the archive;")
    if len(data) != lesion.size:
        differ = f"{lesion.isic_id} has {len(data)} bytes, the archive says {lesion.size}"
        if not confirmed:
            raise TryAgain(f"{differ}, and {host} does not say which is right")
        say(f"{differ}; it is whole, and kept")
    return ENDINGS[header.format]


def write_image(path: Path, data: bytes) -> None:
    """Write an image file under its name, whole or not at all; raises OSError where it cannot be."""
    # One name for the part, not a new one each time: a process that was killed leaves no pile of them.
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
