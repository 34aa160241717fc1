"""Files beside the listed images that no row of the table names."""

from __future__ import annotations

import re

import pandas as pd

from medic.data import corrections
from medic.data.decode import read_header
from medic.data.stores import NOT_READ, Store, is_image_name
from medic.errors import ImageError

_OTHER_PICTURES = (*NOT_READ, ".j2k", ".jxl", ".svg")
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")
_ABOUT = ("readme", "licence", "license", "sources", "attribution", "synthetic")


def unlisted(records: pd.DataFrame, store: Store) -> list[str]:
    """Image files that no row names, in the folders where listed images lie; sorted.

    Folders that differ by a number only (``images_001/images`` to ``images_012/images``) count as one. Others are left
    out: the same images at another size may be there. So are images that the corrections beside the store exclude.
    """
    excluded = _excluded(store) if "corrected" in records else set()
    return [
        name
        for name in _beside(records, store)
        if is_image_name(name) and not name.lower().endswith(_OTHER_PICTURES) and name not in excluded
    ]


def foreign(records: pd.DataFrame, store: Store) -> list[tuple[str, str, str]]:
    """Files of other kinds in the folders where listed images lie, which readers pass over in silence.

    Tables, their JSON, and texts about the set (README, LICENCE, SOURCES, ATTRIBUTION) belong there. In the store's
    top folder only pictures of other formats are found, for there anything may lie beside the images.

    Returns:
        Name, finding and detail: ``unsupported`` for pictures in a format that is not read, ``not_an_image`` for all
        else.
    """
    found = []
    for name in _beside(records, store):
        folder, _, file = name.rpartition("/")
        if file.lower().endswith(_OTHER_PICTURES):
            found.append((name, "unsupported", f"no row names it, and it would not be read: {_refusal(store, name)}"))
        elif (
            folder
            and not is_image_name(name)
            and not file.lower().endswith(_TABLES)
            and not file.lower().startswith(_ABOUT)
        ):
            found.append((name, "not_an_image", "a file of another kind among the images; move it elsewhere"))
    return found


def _refusal(store: Store, name: str) -> str:
    try:
        read_header(store.read(name))
    except ImageError as error:
        return str(error)
    return "it is an image under the name of another format; rename it"


def _excluded(store: Store) -> set[str]:
    journal = corrections.beside(store.location)
    last = {one.image: one.after for one in corrections.read(journal)} if journal.is_file() else {}
    return {image for image, label in last.items() if label == corrections.EXCLUDED}


def _beside(records: pd.DataFrame, store: Store) -> list[str]:
    """Names that no row has, in the folders of listed images, sorted."""
    listed = set(records["image"])
    names = store.names()
    kinds = {folder: re.sub(r"\d+", "0", folder) for folder in {name.rpartition("/")[0] for name in names}}
    ours = {kinds[name.rpartition("/")[0]] for name in names if name in listed}
    return [name for name in names if name not in listed and kinds[name.rpartition("/")[0]] in ours]
