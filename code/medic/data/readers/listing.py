"""Tables however they were saved and titled, and what stands in which column.

Titles are known in several languages and from published tables, by ``known_headers.json``.
"""

import contextlib
import csv
import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from medic.data.stores import FolderStore, Store, open_store
from medic.errors import MedicError


def open_tables(source: str | os.PathLike) -> tuple[Store, str | None]:
    """Open the folder or zip file that holds tables; of a table itself its folder, and its name there."""
    path = Path(source)
    if path.is_file() and path.name.lower().endswith((".csv", ".tsv", ".txt")):
        return FolderStore(path.parent), path.name
    return open_store(path), None


def find_table(tables: Store, wanted: str) -> str | None:
    """Return the table of that name, in any case, nearest to the top of the store; raises where two are."""
    found = [name for name in tables.names() if name.rpartition("/")[2].lower() == wanted.lower()]
    first, *others = sorted(found, key=lambda name: name.count("/")) or [None]
    if others and others[0].count("/") == first.count("/"):
        raise MedicError(f"{tables.location} holds {wanted} twice ({first}, {others[0]}); name the folder of one")
    return first


def read_table(tables: Store, file: str, titled: bool = False) -> pd.DataFrame:
    """Read a CSV file as it was saved: any usual separator, UTF-8, UTF-16 or Windows' letters, decimal commas.

    Returns:
        Text, empty where a line is too short; no blank lines. The index is the number of each line. The columns are the
        titles in the first line if it is ``titled`` or has a known title, otherwise numbers.

    Raises:
        MedicError: it is no text, lists nothing, or has a line with more columns than the first.
    """
    where = f"{file} in {tables.location}"
    text, number = _text(tables.read(file), where), 1
    if said := re.match(r'"?sep=(.)"?[^\n]*\n', text):  # what Excel reads before all else
        text, number = text[said.end() :], 2
    first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    separator = said[1] if said else max([mark for mark in ",;\t" if mark in first] or ",|", key=first.count)
    # Strict, or a quotation mark that is never closed takes lines into its cell, and says nothing.
    layout = {"delimiter": separator, "skipinitialspace": True}
    lines, numbers = csv.reader(io.StringIO(text), **layout, strict=True), [number]
    header, width, filled = [], 0, 0
    try:
        for cells in lines:
            if any(map(str.strip, cells)):
                header, filled = header or [cell.strip() for cell in cells], filled + 1
            width = max(width, len(cells))
            numbers.append(number + lines.line_num)
    except csv.Error as error:
        raise MedicError(f"{where} line {numbers[-1]} cannot be read; is there a quotation mark too many?") from error
    titles = set().union(*(group for groups in known()["columns"].values() for group in groups))
    titled = titled or not titles.isdisjoint(map(plain, header))
    if filled <= titled:
        raise MedicError(f"{where} lists no image; it needs one line an image")
    layout |= {"header": None, "names": range(width), "index_col": False, "dtype": str, "na_filter": False}
    table = pd.read_csv(io.StringIO(text), **layout, skip_blank_lines=False).fillna("")
    table = table.set_axis(numbers[:-1]).map(str.strip)
    table = table[(table != "").any(axis=1)]
    longer = (table.iloc[:, len(header) :] != "").any(axis=1)
    what = f"begins a line of too many columns; is there a {separator!r} in a value, or a line above the titles?"
    refuse(table[0], longer, where, what)
    table = table.iloc[:, : len(header)]
    if separator != ",":
        table = table.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)
    return table.iloc[1:].set_axis(header, axis=1) if titled else table


def _text(data: bytes, where: str) -> str:
    text = "\0"
    for codec in ("utf-16",) if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(codec)
            break
    if "\0" in text or text.startswith("PK\3\4"):
        raise MedicError(f"{where} is no text, but perhaps a spreadsheet; save it as CSV in UTF-8")
    if codec == "cp1252":
        print(f"{where} is no UTF-8 text and is read as Windows wrote it (cp1252)", file=sys.stderr)
    # No reader sees letters of no width; strict parsing wants no blank behind a quotation mark.
    return re.sub('(?<=") +(?=[,;\t|\n])', "", re.sub("[\u200b\ufeff]", "", re.sub("\r\n?", "\n", text)))


def refuse(cells: pd.Series, unfit: pd.Series, where: str, what: str) -> None:
    """Raise, where a cell is unfit, ``where`` line 3, 5: 'x' ``what``; the index is the number of each line."""
    if unfit.any():
        lines = [*map(str, cells.index[unfit][:5]), "..."][: unfit.sum()]
        raise MedicError(f"{where} line {', '.join(lines)}: {cells[unfit].iloc[0]!r} {what}")


def plain(title: str) -> str:
    """Return a title without what spellings differ in: ``Patient ID`` and ``patient_id`` become the same."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", title).casefold() if letter.isalnum())


@cache
def known() -> dict:
    """Return ``known_headers.json``, with plain titles, and of each spelling of a split the split."""
    found = json.loads(Path(__file__).with_name("known_headers.json").read_text(encoding="utf-8"))
    for columns in (found["columns"], found["details"]):
        columns |= {what: [set(map(plain, group)) for group in groups] for what, groups in columns.items()}
    found["published"] = [entry | {"header": set(map(plain, entry["header"]))} for entry in found["published"]]
    found["splits"] = {plain(word): split for split, words in found["splits"].items() for word in words}
    return found


def split_of(word: str) -> str | None:
    """Return ``train``, ``validation`` or ``test`` for a word that means it, in any spelling that is known."""
    return known()["splits"].get(plain(word))


def missing(cells: pd.Series) -> pd.Series:
    """Return where cells say that nothing is known: empty, ``nan``, ``None``, ``NULL``, ``n/a`` and the like."""
    return cells.str.casefold().isin(known()["missing"])


def cells_of(
    table: pd.DataFrame, where: str, chosen: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Find what a table says of images by its titles; two columns without titles are image and label.

    Titles that are ``chosen`` for ``image``, ``label``, ``patient``, ``group`` (of images that belong together) or
    ``split`` count before all that are known. A label may also stand in one column of 0 and 1 a class.

    Returns:
        Text by line, a column for each of these that is there and for details such as ``age``; and their titles.

    Raises:
        MedicError: a chosen title or what is needed is not there, or several columns could be meant.
    """
    chosen, written, places = chosen or {}, list(map(str, table.columns)), {}
    spelled = list(map(plain, written))
    published = next((entry for entry in known()["published"] if entry["header"] <= set(spelled)), {})
    if foreign := chosen.keys() - known()["columns"].keys():
        raise MedicError(f"{min(foreign)!r} is no kind of column; name {', '.join(known()['columns'])}")
    for what, groups in (known()["columns"] | known()["details"]).items():
        title = chosen.get(what, published.get(what))
        wanted = [{plain(title)}] if title else groups
        fitting = next(filter(None, ([n for n, one in enumerate(spelled) if one in group] for group in wanted)), [])
        if what in chosen and not fitting:
            raise MedicError(f"{where} has no column called {title!r}; it has: {', '.join(written)}")
        if len(fitting) > 1 and what in ("image", "label", "patient", "split"):
            could_be = ", ".join(written[place] for place in fitting)
            alike = len({spelled[place] for place in fitting}) == 1
            remedy = "rename or remove all but one" if alike else advice(what)
            raise MedicError(f"{where} has several columns that could be the {what}: {could_be}; {remedy}")
        if fitting:
            places[what] = fitting[0]
    of_splits = [n for n in range(len(spelled)) if all(split_of(cell) for cell in table.iloc[:, n].unique())]
    if "split" not in places and len(of_splits) == 1:  # whatever its title is: dataset, Train/Test
        places["split"] = of_splits[0]
    titles = {what: written[place] for what, place in places.items()}
    places = {"image": 0, "label": 1} if spelled == ["0", "1"] else places
    cells = pd.DataFrame({what: table.iloc[:, place] for what, place in places.items()})
    if "label" not in cells:  # it may be told by columns of 0 and 1, one a class; an image without any is the rest
        rest, others = published.get("rest"), table.drop(columns=table.columns[list(places.values())])
        numbers = others.apply(pd.to_numeric, errors="coerce")
        numbers = numbers.loc[:, numbers.isin((0, 1)).all()]
        total = numbers.sum(axis=1)
        if numbers.shape[1] > 1 and total.between(int(rest is None), 1).all():
            cells["label"] = numbers.idxmax(axis=1).where(total == 1, rest)
    for what in ("image", "label"):
        if what not in cells:
            line = ", ".join(table.iloc[0] if spelled[0] == "0" else written)
            raise MedicError(f"{where} has no column called like the {what} ({line[:100]}); {advice(what)}")
    if "unlabelled" in published and "label" in cells and (empty := missing(cells["label"])).any():
        print(f"{where}: {empty.sum()} of {len(cells)} images have no label and are left out", file=sys.stderr)
        cells = cells[~empty].copy()
    return cells, titles


def advice(what: str) -> str:
    """Say how a person names a column, on the command line and in Python."""
    option = f"--{what}-column TITLE, in Python " if what in ("image", "label", "patient") else ""
    return f'say which with {option}columns={{"{what}": "TITLE"}}'


def whole(cells: pd.Series) -> pd.Series:
    """Return cells as whole numbers, Int64; missing where there is none."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers.where(numbers % 1 == 0).astype("Int64")


def sexes(cells: pd.Series) -> pd.Series:
    """Return ``M`` or ``F`` for each cell that says so, in any case, as a letter or a word; otherwise missing."""
    return cells.str.lower().map({"m": "M", "male": "M", "f": "F", "female": "F"}).astype("string")
