"""Check every set in a data folder, and write what was found: a table, and a page with pictures that explains it."""

from __future__ import annotations

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
from medic.data.readers import DATA_SETS, OWN, DataSet, find_data_set, lesions_or_own
from medic.data.split import patients_known
from medic.data.stores import FolderStore, Store, is_synthetic, mark_product
from medic.errors import ImageError, MedicError
from medic.files import write_text
from medic.task import Task


class Kind(NamedTuple):
    """A kind of finding: its title, what it means, what to do, and whether it is wrong in any case (``mend``)."""

    title: str
    means: str = ""
    do: str = ""
    mend: bool = False


_HERE = Path(__file__).parent
KINDS = {name: Kind(**said) for name, said in json.loads((_HERE / "kinds.json").read_text(encoding="utf-8")).items()}
"""By the name in a table of findings, the gravest first."""
THUMBNAIL = 240
"""Pixels of a thumbnail's longer side."""
EXAMPLES, LISTED = 24, 500
"""Findings of a kind that are shown with their pictures, and that are listed below; the rest is in the table only."""
_TOGETHER = 6  # duplicates of one another that a card shows
_DUPLICATES = ("identical", "near_duplicate")


def write_report(
    findings: pd.DataFrame, records: pd.DataFrame, store: Store, task: Task, path: str | os.PathLike, title: str = ""
) -> Path:
    """Write findings as an HTML file that holds its pictures and asks the network for nothing.

    Kinds stand by gravity, each with what it means and what to do. At most 24 of a kind are shown with pictures, the
    next 500 are listed. Duplicates stand side by side with their labels.

    Args:
        findings: as ``medic.data.check.check`` gives them; those of ``medic.modeling.label_quality`` may be among them.
        records: the records that were checked.
        store: where the images are.
        task: names the classes.
        path: the file to write; whole or not at all.
        title: what the set is called; the task's name when left.

    Returns:
        The path.

    Raises:
        MedicError: the file cannot be written.
    """
    groups = {name: _groups(findings[findings["finding"] == name]) for name in _by_gravity(findings)}
    shown = {row.image for found in groups.values() for group in found[:EXAMPLES] for row in group[:_TOGETHER]}
    names = sorted(name for name in shown if name in store)
    thumbnails = each(lambda name: _thumbnail(store, name), names, title="thumbnails")
    pictures = {name: thumbnail for name, thumbnail in zip(names, thumbnails, strict=True) if thumbnail}
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
        pictures=pictures,
        captions=dict(zip(records["image"], zip(written_labels(records, task), where, strict=True), strict=True)),
        limits={"cards": EXAMPLES, "together": _TOGETHER, "listed": LISTED},
    )
    write_text(Path(path), page)
    return Path(path)


def _by_gravity(findings: pd.DataFrame) -> list[str]:
    found = findings["finding"].unique()
    return [name for name in KINDS if name in found] + [name for name in found if name not in KINDS]


def _groups(findings: pd.DataFrame) -> list[list[NamedTuple]]:
    """Findings of one kind that belong together: duplicates of one another; any other stands for itself."""
    rows = list(findings.itertuples())
    at = {row.image: place for place, row in enumerate(rows) if row.finding in _DUPLICATES}
    pairs = [(at[row.image], at[row.other]) for row in rows if row.image in at and row.other in at]
    groups = pd.Series(rows, dtype=object).groupby(connected(len(rows), pairs), sort=False)
    return [list(group) for _, group in groups]


def _thumbnail(store: Store, name: str) -> str:
    """The image as a data address; empty text where it cannot be read."""
    try:
        pixels = shrunk(decode(store.read(name), at_least=THUMBNAIL), THUMBNAIL)
    except ImageError:
        return ""
    _, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


class Checked(NamedTuple):
    """What was found in one set, and the files that say so."""

    name: str
    images: int  # rows of its table
    findings: pd.DataFrame
    table: Path  # the findings as a CSV file
    page: Path  # the findings as an HTML file

    def counts(self) -> pd.DataFrame:
        """Return ``found`` (how many) and ``first`` (one in words) by kind, the gravest first."""
        said = (self.findings["image"] + ": " + self.findings["detail"]).str.removeprefix(": ")
        kinds = self.findings.assign(first=said).groupby("finding")["first"]
        return kinds.agg(found="size", first="first").reindex(_by_gravity(self.findings))

    def to_json(self) -> dict:
        """Return images, findings by kind, and the two files, as JSON holds them."""
        files = {"table": self.table.as_posix(), "page": self.page.as_posix()}
        return {"images": self.images, "findings": self.counts().to_dict("index"), **files}

    def __str__(self) -> str:
        count = len(self.findings)
        lines = [f"{self.name}: {self.images:,} images, {f'{count:,} findings' if count else 'nothing found'}"]
        lines += [f"  {row.Index:22}{row.found:>7,}  {row.first}" for row in self.counts().itertuples()]
        return "\n".join([*lines, f"  see {self.page}"])


def sets_in(data: str | os.PathLike, name: str | None = None) -> dict[str, tuple[DataSet, Path]]:
    """Find the sets that a data folder holds: by name the data set, and where it lies.

    A folder may hold a folder or zip file for each data set, named as it, or be one; any other is taken for ``own``.
    ``name`` is the one data set that is meant; None takes all that are there.

    Raises:
        MedicError: there is no such folder or zip file, or no such data set.
    """
    data = Path(data)
    if not data.exists():
        raise MedicError(f"there is no folder or zip file {data}; correct the path")
    if name is not None:
        found = find_data_set(name)
        return {name: (found, found.find(data))}
    there = {one.name: (one, path) for one in DATA_SETS.values() if (path := one.find(data)) != data}
    if there:
        return there
    found = DATA_SETS.get(data.resolve().name.removesuffix(".zip")) or lesions_or_own(data)[0]
    return {found.name: (found, data)}


def unknown_in(data: Path, sets: dict[str, tuple[DataSet, Path]]) -> list[str]:
    """List the folders with images, and the zip files, that none of the sets found in a data folder is; sorted."""
    sources = [source for _, source in sets.values()]
    if sources == [data]:
        return []
    folders = {name.partition("/")[0] for name in FolderStore(data).images() if "/" in name}
    known = {*DATA_SETS, *(f"{name}.zip" for name in DATA_SETS), *(source.name for source in sources)}
    return sorted((folders | {path.name for path in data.glob("*.zip")}) - known)


def check_set(
    data_set: DataSet, source: Path, to: str | os.PathLike, *, scheduler: str | None = None, **how: object
) -> Checked:
    """Read one set, check it, and write ``findings.csv`` and ``findings.html``.

    Args:
        data_set: whose reader reads it.
        source: where it lies.
        to: the folder to write to. It is marked as a product of medic, so that no reader takes the table for labels.
        scheduler: as for ``check``.
        how: for the reader of a person's own images: ``level`` or ``columns``, where they can be mistaken.

    Raises:
        MedicError: the set cannot be read, or nothing can be written.
    """
    records, store = data_set.read(source, **how)
    task = data_set.task(records)
    findings = check(records, store, task, scheduler)
    mark_product(to)
    table, page = Path(to) / "findings.csv", Path(to) / "findings.html"
    write_text(table, findings.to_csv(index=False))
    write_report(findings, records, store, task, page, data_set.name if data_set is not OWN else source.resolve().name)
    return Checked(data_set.name, len(records), findings, table, page)
