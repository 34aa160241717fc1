"""What lies beside the images of the ISIC Archive: their table, where they come from, and what one may do with them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from medic.data.download.isic_search import COLUMNS, Lesion, Selection
from medic.files import write_text
from medic.task import SKIN_LESION

LICENCES = {
    "CC-0": (
        "CC0 1.0 Universal, Public Domain Dedication",
        "https://creativecommons.org/publicdomain/zero/1.0/",
        "Whoever made the image has waived all rights in it: use it as you like.",
    ),
    "CC-BY": (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/",
        "Share and adapt it, also commercially, if you name the source (attribution.txt) and say what you changed.",
    ),
    "CC-BY-NC": (
        "Creative Commons Attribution-NonCommercial 4.0 International",
        "https://creativecommons.org/licenses/by-nc/4.0/",
        "Share and adapt it if you name the source (attribution.txt) and say what you changed; not commercially.",
    ),
}
"""By the archive's short name: the name, the address of the text, and what it comes to."""


def write_manifest(
    folder: Path, selection: Selection, stored: Mapping[str, str], missing: Mapping[str, str] | None = None
) -> None:
    """Write ``metadata.csv``, ``SOURCES.md``, ``attribution.txt`` and ``licenses/`` for the images that are there.

    Args:
        folder: the set's folder.
        selection: the lesions asked for.
        stored: by the lesion's name, the SHA-256 of its file, for those that are on disk.
        missing: by the lesion's name, why it could not be had.

    Raises:
        MedicError: a file cannot be written.
    """
    lesions = [lesion for lesion in selection.lesions if lesion.isic_id in stored]
    licences = Counter(lesion.row["copyright_license"] for lesion in lesions)
    for name in licences:
        write_text(folder / "licenses" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.txt", _licence(name))
    write_text(folder / "attribution.txt", _attribution(lesions))
    write_text(folder / "SOURCES.md", _sources(selection, lesions, licences, missing or {}))
    # Last, because it is what the reader reads and what a later call compares.
    write_text(folder / "metadata.csv", table(selection, stored))


def table(selection: Selection, stored: Mapping[str, str]) -> str:
    """The text of ``metadata.csv``: one row an image on disk, in the order of their names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, "sha256"], lineterminator="\n")
    writer.writeheader()
    for lesion in sorted(selection.lesions, key=lambda lesion: lesion.isic_id):
        if lesion.isic_id in stored:
            writer.writerow(lesion.row | {"sha256": stored[lesion.isic_id]})
    return text.getvalue()


def counted(values: Counter[str]) -> str:
    """Counts in words: ``CC-0 150, CC-BY 20``."""
    return ", ".join(f"{value} {count}" for value, count in sorted(values.items()))


def _licence(name: str) -> str:
    if name not in LICENCES:
        return f"{name}\n\nThe archive names this licence so; see https://www.isic-archive.com for its text.\n"
    title, url, meaning = LICENCES[name]
    return f"{title}\n(in the ISIC Archive: {name})\n\n{url}\n\n{meaning}\nThe text at that address decides.\n"


def _attribution(lesions: list[Lesion]) -> str:
    """Whom to name, the most frequent first; which image is whose stands in ``metadata.csv``."""
    whose = Counter((lesion.row["attribution"], lesion.row["copyright_license"]) for lesion in lesions)
    lines = [
        f"{name or 'no name given'} ({licence}; images: {count})"
        for (name, licence), count in sorted(whose.items(), key=lambda item: (-item[1], item[0]))
    ]
    return "\n\n".join(lines) + "\n"


def _sources(selection: Selection, lesions: list[Lesion], licences: Counter[str], missing: Mapping[str, str]) -> str:
    classes = Counter(lesion.label for lesion in lesions)
    by_class = ", ".join(f"{classes[label]} {label}" for label in SKIN_LESION.classes)
    rows = "\n".join(
        f"| {name} | {count} | {LICENCES[name][1] if name in LICENCES else 'https://www.isic-archive.com'} |"
        for name, count in sorted(licences.items())
    )
    lacking = len(selection.lesions) - len(lesions)
    absent = f"\nNot here: {lacking} of the {len(selection.lesions)} images asked for.\n" if lacking else ""
    absent += "".join(f"- {name}: {reason}\n" for name, reason in sorted(missing.items()))
    return f"""# Where these images come from

- Set: ISIC Archive (https://www.isic-archive.com), {len(lesions)} images: {by_class}
- Asked: {selection.api}/images/search/ on {selection.date}
- Query: `{selection.query or "(all images)"}`, each class by itself
- Collections: {", ".join(map(str, selection.collections)) or "all"}
- Limit: {selection.limit} images, as many benign as malignant as far as there are

Each image has a licence of its own (column `copyright_license` of `metadata.csv`) and names its source (column
`attribution`, gathered in `attribution.txt`).

| licence | images | text |
| --- | --- | --- |
{rows}
{absent}
The files in `images/` are as the archive sent them; `sha256` in `metadata.csv` is that of the file. The columns are
the archive's; `benign_malignant` holds its `diagnosis_1` (or the former field of that name) in small letters,
`diagnosis` the finest diagnosis given.

These are the oldest entries that fit the query, no random sample, and as many of each class as the limit asks for, not
as often as in life. The classes may come from different hospitals and instruments, which a network can learn in place
of the disease. `patient_id` and `lesion_id` are given for some images only. Not for medical use.
"""
