"""Fetch skin lesions from the ISIC Archive: image by image, each checked, with what one may do with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from medic.data.download.isic_image import ENDINGS, fetch_image, write_image
from medic.data.download.isic_manifest import counted, table, write_manifest
from medic.data.download.isic_search import API, Archive, Lesion, Selection, Withdrawn, select
from medic.data.download.patience import HEADERS, PATIENCE, GiveUp, LeaveAlone, Patience, progress, say
from medic.data.download.sources import SOURCES
from medic.data.images.decode import read_header
from medic.errors import ImageError, MedicError
from medic.files import write_json
from medic.task import SKIN_LESION

QUERY = SOURCES["skin_lesion"].query
"""Photographs through a dermoscope. Most of the archive are tiles of whole-body photographs, 15 mm of skin each."""
LIMIT = 200
"""Images that are fetched if no number is given."""
IN_A_ROW = 3
"""Images given up one after the other at which it is the server that fails, and the run ends."""
STATE = "isic.json"
"""The file in the set's folder that says which images it is to hold."""


def download_isic(
    folder: str | os.PathLike,
    *,
    limit: int = LIMIT,
    query: str = QUERY,
    collections: Sequence[int] = (),
    url: str = API,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch benign and malignant lesions, half of each, into ``folder/images``, with ``metadata.csv`` beside them.

    Which images it will be is asked once and kept in ``isic.json``. Interrupted and called again it goes on, without a
    new search, and ends with the same files; a larger ``limit`` adds to what is there. An image that stays bad is
    named, here and in ``SOURCES.md``, and the others are fetched; the next call tries it again.

    Args:
        folder: the set's own folder; absent, empty, or from an earlier call.
        limit: images in all, 2 or more. Where one class has fewer than half, the other makes up for it.
        query: in the archive's query language (https://www.isic-archive.com/data-dictionary), without the class.
        collections: only images of these collections, by their number in the archive; empty for all.
        url: the address of the API.
        patience: waits and limits.

    Returns:
        ``folder``, with ``images/``, ``metadata.csv``, ``SOURCES.md``, ``attribution.txt`` and ``licenses/``.

    Raises:
        MedicError: the archive cannot be asked, does not understand the query, answers in another shape or has too
            few lesions; images cannot be fetched; the folder cannot be written or holds something else. The message
            says what is kept and what to do by hand.
    """
    folder, collections, url = Path(folder), tuple(collections), url.rstrip("/")
    if limit < 2:
        raise MedicError(f"{limit} images cannot be of two classes; ask for 2 or more (--limit)")
    known = _earlier(folder, url, query, collections, limit)
    try:
        with httpx.Client(follow_redirects=True, timeout=patience.timeout, headers=HEADERS) as client:
            archive = Archive(client, url, patience)
            selection = known
            if selection is None or selection.limit < limit:
                selection = _with_known_sizes(select(archive, query, collections, limit), known)
                write_json(folder / STATE, selection.to_dict())
            _fetch_all(archive, selection, folder)
    except (GiveUp, httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) if isinstance(error, GiveUp) else f"{url} cannot be asked ({error});"
        raise MedicError(
            f"the skin lesions were not all downloaded: {reason} {_by_hand(folder, query, collections, limit)}. "
            f"{_kept(folder)}"
        ) from error
    except OSError as error:
        raise MedicError(
            f"the skin lesions were not all downloaded: cannot write {error.filename or folder} "
            f"({error.strerror or error}); free some space or choose a folder that can be written, and give the same "
            f"command again. {_kept(folder)}"
        ) from error
    return folder


def _earlier(folder: Path, url: str, query: str, collections: tuple[int, ...], limit: int) -> Selection | None:
    """The selection of an earlier call, None in an absent or empty folder; an error if something else is there."""
    advice = f"move {folder} away or choose another folder (on the command line: --folder)"
    try:
        # Hidden files are a file manager's, or our own that a kill has left behind.
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MedicError(f"cannot use {folder} as a folder ({error.strerror}); move it away") from error
    if not there:
        return None
    if STATE not in there:
        raise MedicError(
            f"{folder} holds something other than a download from the ISIC Archive ({there[0]}), and it is not mixed "
            f"with it; {advice}"
        )
    try:
        known = Selection.from_dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MedicError(f"{folder / STATE} cannot be read ({error}); {advice} and download again") from error
    if (known.api, known.query, known.collections) != (url, query, collections) or known.limit > limit:
        asked = f"{known.limit} images for the query {known.query!r}"
        raise MedicError(f"{folder} holds another selection ({asked}, from {known.api}); {advice}")
    return known


def _with_known_sizes(selection: Selection, known: Selection | None) -> Selection:
    """The sizes found to be right where the archive's were not, of images that an earlier call asked for."""
    sizes = {} if known is None else {lesion.isic_id: lesion.size for lesion in known.lesions}
    return _resized(selection, sizes)


def _resized(selection: Selection, sizes: dict[str, int]) -> Selection:
    lesions = (replace(lesion, size=sizes.get(lesion.isic_id, lesion.size)) for lesion in selection.lesions)
    return replace(selection, lesions=tuple(lesions))


def _fetch_all(archive: Archive, selection: Selection, folder: Path) -> None:
    """Fetch what is not there yet, and write the papers for all that is, also when it is interrupted."""
    stored, there = _present(folder, selection)
    whole = len(stored) == len(selection.lesions)
    if whole and _same(folder / "metadata.csv", table(selection, stored)):
        say(f"{len(stored)} images of the ISIC Archive are already in {folder}; nothing to do")
        return
    _report_strays(folder, selection, there)
    missing: dict[str, str] = {}
    resized: dict[str, int] = {}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    try:
        for lesion, digest, size in _fetched(archive, selection, stored, there, missing, folder):
            stored[lesion.isic_id] = digest
            if size != lesion.size:
                resized[lesion.isic_id] = size
    except BaseException:
        # What is on disk is of use already; that it is not all is the error's business, which must not be hidden.
        with contextlib.suppress(MedicError, OSError):
            _write(folder, selection, stored, missing, resized)
        raise
    _write(folder, selection, stored, missing, resized)
    _report(folder, selection, stored, missing)


def _fetched(
    archive: Archive,
    selection: Selection,
    stored: dict[str, str],
    there: dict[str, Path],
    missing: dict[str, str],
    folder: Path,
) -> Iterator[tuple[Lesion, str, int]]:
    """Each lesion that was not there, with its file's SHA-256 and number of bytes, once the file is on disk."""
    in_a_row = 0
    with progress("skin lesions", len(stored), len(selection.lesions), "image") as bar:
        for lesion in [lesion for lesion in selection.lesions if lesion.isic_id not in stored]:
            try:
                data, ending = fetch_image(archive, lesion)
            except LeaveAlone:
                raise
            except GiveUp as error:
                missing[lesion.isic_id] = str(error).removesuffix("; run it again later, or").removesuffix(";")
                in_a_row += not isinstance(error, Withdrawn)
                if in_a_row == IN_A_ROW:
                    raise GiveUp(f"{IN_A_ROW} images in a row cannot be had; of {lesion.isic_id}: {error}") from error
                say(f"{lesion.isic_id} is left out: {missing[lesion.isic_id]}")
                continue
            in_a_row = 0
            path = folder / "images" / f"{lesion.isic_id}{ending}"
            write_image(path, data)
            if there.get(lesion.isic_id, path) != path:
                there[lesion.isic_id].unlink()
            bar.update(1)
            yield lesion, hashlib.sha256(data).hexdigest(), len(data)


def _present(folder: Path, selection: Selection) -> tuple[dict[str, str], dict[str, Path]]:
    """The SHA-256 of each image that is there with the right size and is one; and every image file, by its stem."""
    with contextlib.suppress(FileNotFoundError):
        for leftover in (folder / "images").glob("ISIC_*.part"):
            leftover.unlink()
    there = {path.stem: path for path in (folder / "images").glob("ISIC_*") if path.suffix in ENDINGS.values()}
    stored = {}
    for lesion in selection.lesions:
        if (path := there.get(lesion.isic_id)) is None:
            continue
        data = path.read_bytes()
        try:
            read_header(data)
            wrong = "" if len(data) == lesion.size else f"it has {len(data)} bytes instead of {lesion.size}"
        except ImageError as error:
            wrong = str(error)
        if wrong:
            say(f"{path.name} is there, but {wrong}: it is fetched again")
        else:
            stored[lesion.isic_id] = hashlib.sha256(data).hexdigest()
    return stored, there


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _report_strays(folder: Path, selection: Selection, there: dict[str, Path]) -> None:
    strays = set(there) - {lesion.isic_id for lesion in selection.lesions}
    if strays:
        say(
            f"{len(strays)} images in {folder / 'images'} are not in today's selection ({min(strays)}, ...); they stay "
            "there and are not listed in metadata.csv"
        )


def _write(
    folder: Path, selection: Selection, stored: dict[str, str], missing: dict[str, str], resized: dict[str, int]
) -> None:
    if resized:
        write_json(folder / STATE, _resized(selection, resized).to_dict())
    if stored:
        write_manifest(folder, selection, stored, missing)
    else:
        (folder / "metadata.csv").unlink(missing_ok=True)  # of images that somebody deleted


def _report(folder: Path, selection: Selection, stored: dict[str, str], missing: dict[str, str]) -> None:
    here = [lesion for lesion in selection.lesions if lesion.isic_id in stored]
    classes = Counter(lesion.label for lesion in here)
    licences = Counter(lesion.row["copyright_license"] for lesion in here)
    absent = set(SKIN_LESION.classes) - set(classes)
    if absent:
        raise GiveUp(f"no {min(absent)} lesion could be had, and both classes are needed; run it again later, or")
    say(f"{len(here)} images are in {folder}: {counted(classes)}; licences: {counted(licences)} (see licenses/)")
    if missing:
        say(f"left out: {', '.join(sorted(missing))}; give the same command again to try once more")


def _kept(folder: Path) -> str:
    images = sum(path.suffix in ENDINGS.values() for path in (folder / "images").glob("ISIC_*"))
    return f"{images or 'no'} images are kept in {folder}; the same command goes on from there"


def _by_hand(folder: Path, query: str, collections: tuple[int, ...], limit: int) -> str:
    classes = " OR ".join(f"diagnosis_1:{label.capitalize()}" for label in SKIN_LESION.classes)
    search = f"({query}) AND ({classes})" if query else classes
    only = f" --collections {','.join(map(str, collections))}" if collections else ""
    return (
        "by hand: install the archive's own client (pip install isic-cli) and let it write into an empty folder, which "
        f"is then read like this one: isic image download --search '{search}'{only} --limit {limit} "
        f'"{folder.as_posix()}_by_hand"'
    )
