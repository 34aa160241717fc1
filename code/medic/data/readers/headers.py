"""What the columns of tables are called: words in several languages and published headers, kept in a file of data."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medic.errors import MedicError


@dataclass(frozen=True)
class Columns:
    """Where what stands in a table.

    Attributes:
        places: position of each column that is known: ``image``, ``label``, ``patient``, ``group`` (of images that
            belong together), ``split``.
        rest: of labels in one column a class, what an image without any is; None where each image has one.
        leaves_out: whether the published table has rows without a label, which are left out.
    """

    places: Mapping[str, int]
    rest: str | None = None
    leaves_out: bool = False


def plain(title: str) -> str:
    """A title without what spellings differ in: ``Patient ID``, ``PatientID`` and ``patient_id`` are the same."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", title).casefold() if letter.isalnum())


def is_missing(cell: str) -> bool:
    """Whether a cell says that nothing is known: empty, ``nan``, ``None``, ``NULL``, ``n/a`` and the like."""
    return cell.casefold() in known()["missing"]


@cache
def known() -> dict:
    """The registry, with all titles plain and each split by its spellings."""
    found = json.loads(Path(__file__).with_name("known_headers.json").read_text(encoding="utf-8"))
    for what, groups in found["columns"].items():
        found["columns"][what] = [{plain(title) for title in group} for group in groups]
    for entry in found["published"]:
        entry["header"] = {plain(title) for title in entry["header"]}
    found["splits"] = {word: split for split, words in found["splits"].items() for word in words}
    found["missing"] = frozenset(found["missing"])
    return found


def titles() -> set[str]:
    """All titles that are known, plain: a first line with one of them is a header."""
    groups = [group for groups in known()["columns"].values() for group in groups]
    return set().union(*groups, *(entry["header"] for entry in known()["published"]))


def find_columns(header: list[str], chosen: Mapping[str, str], where: str) -> Columns:
    """Find the columns of a table by their titles.

    Args:
        header: the titles as written.
        chosen: titles that a person names, by ``image``, ``label``, ``patient``, ``group`` or ``split``; they count
            before all others.
        where: what messages call the table.

    Raises:
        MedicError: a chosen title is not there, or several columns could be meant.
    """
    unknown = [what for what in chosen if what not in known()["columns"]]
    if unknown:
        raise MedicError(f"columns={{{unknown[0]!r}: ...}} is not one of {', '.join(known()['columns'])}; correct it")
    spelled = [plain(title) for title in header]
    published = next((entry for entry in known()["published"] if entry["header"] <= set(spelled)), {})
    places = {}
    for what, groups in known()["columns"].items():
        if what in chosen:
            fitting = [place for place, title in enumerate(header) if title == chosen[what]]
            fitting = fitting or [place for place, title in enumerate(spelled) if title == plain(chosen[what])]
            if len(fitting) != 1:
                raise MedicError(
                    f"{where} has {len(fitting)} columns called {chosen[what]!r}, and one is needed; it has: "
                    f"{', '.join(header)}"
                )
        elif what in published and plain(published[what]) in spelled:
            fitting = [spelled.index(plain(published[what]))]
        else:
            by_group = ([place for place, title in enumerate(spelled) if title in group] for group in groups)
            fitting = next(filter(None, by_group), [])
        if len(fitting) > 1 and what != "group":
            could_be = ", ".join(header[place] for place in fitting)
            raise MedicError(f"{where} has several columns that could be the {what}: {could_be}; {advice(what)}")
        if fitting:
            places[what] = fitting[0]
    return Columns(places, published.get("rest"), "unlabelled" in published)


def advice(what: str) -> str:
    """How a person says which column it is, on the command line and in Python."""
    option = f"--{what}-column TITLE, in Python " if what in ("image", "label", "patient") else ""
    return f'say which with {option}columns={{"{what}": "TITLE"}}'
