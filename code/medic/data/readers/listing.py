"""Tables however they were saved, and the store of the images that they list."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medic.data.corrections import FILE
from medic.data.readers.headers import plain
from medic.data.stores import FolderStore, IdxStore, JointStore, Store, ZipStore, open_store
from medic.errors import MedicError

_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".z01", ".001")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def csv_files(tables: Store) -> list[str]:
    """Names of the tables in a store; the journal of corrections is none."""
    return [
        name
        for name in tables.names()
        if name.lower().endswith((".csv", ".tsv")) and name.rpartition("/")[2].lower() != FILE.lower()
    ]


def find_table(tables: Store, wanted: str) -> str | None:
    """The table of that name, in any case, nearest to the top of the store.

    Raises:
        MedicError: two lie equally near.
    """
    found = [name for name in tables.names() if name.rpartition("/")[2].lower() == wanted.lower()]
    found.sort(key=lambda name: name.count("/"))
    if len(found) > 1 and found[0].count("/") == found[1].count("/"):
        raise MedicError(
            f"{tables.location} holds {wanted} twice ({found[0]}, {found[1]}); name the folder of one of them"
        )
    return found[0] if found else None


def read_table(tables: Store, file: str, titles: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a CSV file as it was saved: commas, semicolons or tabs, UTF-8, UTF-16 or Windows' letters, decimal commas.

    Args:
        tables: the store that holds it.
        file: its name there.
        titles: plain titles (``medic.data.readers.headers.plain``) of which one stands in a first line that is a
            header; by default the first line is one.

    Returns:
        Text without blanks at the ends, empty where a line is too short; no blank lines. The index is the number of
        each line in the file, the columns are the titles as written, or numbers where there is no header.

    Raises:
        MedicError: it is no text, has no line, or has a line with more columns than the first.
    """
    where = f"{file} in {tables.location}"
    text = _text(tables.read(file), where)
    skipped, separator = 0, None
    if said := re.match(r'"?sep=(.)"?[^\n]*\n', text):  # what Excel reads before all else
        text, skipped, separator = text[said.end() :], 1, said[1]
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = separator or max(",;\t", key=first.count)
    header = [cell.strip() for cell in next(csv.reader([first], delimiter=separator), [])]
    if not header:
        raise MedicError(f"{where} is empty; it needs one line an image")
    wide = len(header)  # one more is read: some publishers end each line with a separator
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            names=range(wide + 1),
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            index_col=False,
        ).fillna("")
    except pd.errors.ParserError as error:
        raise MedicError(f"{where} cannot be read as a table ({str(error).strip()}); correct that line") from error
    table.index = pd.RangeIndex(1, len(table) + 1) + skipped + _breaks_before(table, text)
    table = table.apply(_stripped, decimals=separator != ",")
    table = table[~(table == "").all(axis=1)]
    longer = table[wide] != ""
    if longer.any():
        raise MedicError(
            f"{where}, line {line_numbers(table.index[longer])}, has more columns than the first line; is there a "
            f"{separator!r} in a value?"
        )
    table = table.drop(columns=wide)
    known = None if titles is None else set(titles)
    if known is None or any(plain(cell) in known for cell in header):
        table = table.iloc[1:].set_axis(header, axis=1)
    return table


def _text(data: bytes, where: str) -> str:
    if data.startswith(_SPREADSHEETS):
        raise MedicError(f"{where} is a spreadsheet, though its name says otherwise; save it as CSV")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        codec = "utf-16"
    else:
        codec = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be" if data[:1] == b"\0" else "utf-8-sig"
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError as error:
            raise MedicError(f"{where} is no text ({error}); save it as CSV in UTF-8") from error
        print(f"{where} is no UTF-8 text and is read as Windows wrote it (cp1252)", file=sys.stderr)
    if "\0" in text:
        raise MedicError(f"{where} is no text; save it as CSV in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _breaks_before(table: pd.DataFrame, text: str) -> np.ndarray | int:
    """How many line breaks inside cells stand before each row."""
    if '"' not in text or text.count("\n") <= len(table):
        return 0
    inside = table.apply(lambda cells: cells.str.count("\n")).sum(axis=1).to_numpy(int)
    return np.cumsum(inside) - inside


def _stripped(cells: pd.Series, decimals: bool) -> pd.Series:
    """Cells without blanks at their ends, each distinct one looked at once; ``1,5`` becomes ``1.5``."""
    codes, texts = pd.factorize(cells)
    texts = [text.strip() for text in texts]
    if decimals:
        texts = [text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text for text in texts]
    return pd.Series(np.array(texts, dtype=object)[codes] if texts else [], cells.index, dtype=object)


def line_numbers(lines: Iterable[int]) -> str:
    """The first line numbers, for messages."""
    lines = list(lines)
    return ", ".join(map(str, lines[:5])) + ", ..." * (len(lines) > 5)


def refuse_twice(names: pd.Series, where: str) -> None:
    """Refuse a table, whose index are line numbers, that lists an image more than once."""
    twice = names.duplicated(keep=False)
    if twice.any():
        first = names[twice].iloc[0]
        raise MedicError(
            f"{where} lists {int(names.duplicated().sum())} images more than once, for instance {first} in the lines "
            f"{line_numbers(names.index[names == first])}; keep one line an image"
        )


def open_images(location: Path) -> Store:
    """The store of the images in a folder or a zip file; all zip files with images in a folder belong to it.

    Returns:
        The folder or the zip file itself where all images are in one; otherwise a joint store, in which a zip file's
        key is its name without the ending. A folder without any image is a store too: all that is listed is absent.

    Raises:
        MedicError: as ``open_store``; a zip file holds zip files instead of images; there are only archives that are
            not read; two zip files have the same name.
    """
    store = open_store(location)
    if isinstance(store, IdxStore):
        return store
    if isinstance(store, ZipStore):
        _refuse_nested(store)
        return store
    archives = [ZipStore(store.location / name) for name in store.names() if name.lower().endswith(".zip")]
    for archive in archives:
        _refuse_nested(archive)
    archives = [archive for archive in archives if archive.images()]
    if not archives and not store.images():
        refuse_other_archives(store)
    if not archives:
        return store
    if len(archives) == 1 and not store.images():
        return archives[0]
    keys = [PurePosixPath(archive.location).stem for archive in archives]
    if len(set(keys)) < len(keys):
        raise MedicError(f"{location} has zip files of the same name ({', '.join(keys)}); give each a name of its own")
    stores = dict(zip(keys, archives, strict=True))
    if store.images():
        # A zip file of that name would hide the folder's images.
        stores[next(key for key in ("folder", "_folder") if key not in stores)] = store
    return JointStore(stores)


def _refuse_nested(archive: ZipStore) -> None:
    nested = [inside for inside in archive.names() if inside.lower().endswith(".zip")]
    if nested and not archive.images():
        raise MedicError(
            f"{archive.location.name} holds {len(nested)} zip files ({nested[0]}, ...) instead of images; unpack it "
            "once and leave those inside packed: they are read as they are"
        )


def refuse_other_archives(store: Store) -> None:
    """In a folder without images, name the archive that would hold them and is not read, with what to do."""
    if isinstance(store, FolderStore):
        for name in store.names():
            if name.lower().endswith(_ARCHIVES):
                open_store(store.location / name)
