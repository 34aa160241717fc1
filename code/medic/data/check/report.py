"""Check every set in a data folder, and write what was found: a table, and a page with pictures that explains it."""

import base64
import json
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import jinja2
import pandas as pd

from medic.data.check import check
from medic.data.check.duplicates import connected
from medic.data.corrections import written_labels
from medic.data.images.decode import decode, shrunk
from medic.data.parallel import each
from medic.data.readers import DATA_SETS, OWN, DataSet, data_set_of, lesions_or_own
from medic.data.split import patients_known
from medic.data.stores import Store, is_synthetic, mark_product
from medic.errors import ImageError, MedicError
from medic.files import write_text
from medic.task import TASKS, Task


class Kind(NamedTuple):
    """A kind of finding: its title, what it means, what to do, and whether it is wrong in any case (``mend``)."""

    title: str
    means: str = ""
    do: str = ""
    mend: bool = False


_HERE = Path(__file__).parent
KINDS = {name: Kind(**said) for name, said in json.loads((_HERE / "kinds.json").read_text(encoding="utf-8")).items()}
"""By the name in a table of findings, the gravest first."""
EXAMPLES = 24
"""Findings of a kind that are shown with their pictures; the next 500 are listed, the rest is in the table only."""
_THUMBNAIL = 240  # pixels of the longer side
_TOGETHER = 6  # duplicates of one another that a card shows


def write_report(
    findings: pd.DataFrame, records: pd.DataFrame, store: Store, task: Task, path: str | os.PathLike, title: str = ""
) -> Path:
    """Write findings as an HTML file that holds its pictures and asks the network for nothing; return its path.

    Kinds stand by gravity, each with what it means and what to do; duplicates side by side with their labels. Findings
    of a model that doubts labels may be among those of ``medic.data.check.check``.

    Raises:
        MedicError: the file cannot be written.
    """
    groups = {}
    for name in _by_gravity(findings):  # duplicates of one another belong together; any other stands for itself
        rows = list(findings[findings["finding"] == name].itertuples())
        at = {row.image: place for place, row in enumerate(rows)}
        joined = connected(len(rows), [(at[row.image], at[row.other]) for row in rows if row.other and row.other in at])
        groups[name] = [list(group) for _, group in pd.Series(rows, dtype=object).groupby(joined, sort=False)]
    shown = {row.image for found in groups.values() for group in found[:EXAMPLES] for row in group[:_TOGETHER]}
    names = sorted(name for name in shown if name in store)
    pictures = zip(names, each(lambda name: thumbnail(store, name), names, title="thumbnails"), strict=True)
    known = patients_known(records)
    where = records["split"] + (" · patient " + records["patient"].astype(str) if known else "")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (_HERE / "findings.html.j2").read_text(encoding="utf-8")
    )
    page = template.render(
        title=title or task.name,
        count=len(findings),
        mend=sum(name in KINDS and KINDS[name].mend for name in findings["finding"]),
        synthetic=is_synthetic(store),
        facts={
            "Images": f"{len(records):,}",
            "Patients": f"{records['patient'].nunique():,}" if known else "not given",
            "Splits": ", ".join(f"{images:,} {name}" for name, images in records["split"].value_counts().items()),
        },
        sections=[(name, KINDS.get(name, Kind(name.replace("_", " ").capitalize())), groups[name]) for name in groups],
        pictures={name: picture for name, picture in pictures if picture},
        captions=dict(zip(records["image"], zip(written_labels(records, task), where, strict=True), strict=True)),
        limits={"cards": EXAMPLES, "together": _TOGETHER, "listed": 500},
    )
    write_text(Path(path), page)
    return Path(path)


def _by_gravity(findings: pd.DataFrame) -> list[str]:
    return sorted(findings["finding"].unique(), key=lambda name: [*KINDS, name].index(name))


def thumbnail(store: Store, name: str) -> str:
    """Return the image, 240 pixels at most, as a data address; empty text where it cannot be read."""
    try:
        pixels = shrunk(decode(store.read(name), at_least=_THUMBNAIL), _THUMBNAIL)
    except ImageError:
        return ""
    _, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def sets_in(data: str | os.PathLike, name: str | None = None) -> dict[str, tuple[DataSet, Path]]:
    """Find the sets in a data folder, all or the one named (or a task of it): by name the data set, and where it lies.

    A folder may hold a folder or zip file for each data set, named as it, or be one; any other is taken for ``own``.

    Raises:
        MedicError: there is no such folder or zip file, or no such data set.
    """
    data = Path(data)
    if not data.exists():
        raise MedicError(f"there is no folder or zip file {data}; correct the path")
    if name is not None:
        name = data_set_of(TASKS[name]).name if name in TASKS else name
        if (chosen := (DATA_SETS | {OWN.name: OWN}).get(name)) is None:
            raise MedicError(f"no data set is called {name!r}; there is: {', '.join(DATA_SETS)}, {OWN.name}")
        return {name: (chosen, chosen.find(data))}
    there = {one.name: (one, path) for one in DATA_SETS.values() if (path := one.find(data)) != data}
    found = DATA_SETS.get(data.resolve().name.removesuffix(".zip")) or lesions_or_own(data)[0]
    return there or {found.name: (found, data)}


def check_set(
    data_set: DataSet, source: Path, to: str | os.PathLike, *, scheduler: str | None = None, **how: object
) -> dict:
    """Read one set (``how``: what its reader takes besides), check it, and write ``findings.csv`` and ``.html``.

    The folder is marked as a product of medic, so that no reader takes the table for labels.

    Returns:
        For JSON: ``images`` (rows of the table); ``findings``, by kind how many were ``found`` and the ``first`` in
        words, the gravest first; the two files, ``table`` and ``page``.

    Raises:
        MedicError: the set cannot be read, or nothing can be written.
    """
    records, store = data_set.read(source, **how)
    task, table, page = data_set.task(records), Path(to) / "findings.csv", Path(to) / "findings.html"
    findings = check(records, store, task, scheduler)
    mark_product(to)
    write_text(table, findings.to_csv(index=False))
    write_report(findings, records, store, task, page, data_set.name if data_set is not OWN else source.resolve().name)
    said = (findings["image"] + ": " + findings["detail"]).str.removeprefix(": ").groupby(findings["finding"])
    counts = said.agg(found="size", first="first").reindex(_by_gravity(findings)).to_dict("index")
    return {"images": len(records), "findings": counts, "table": table.as_posix(), "page": page.as_posix()}
