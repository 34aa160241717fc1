"""Check every set in a data folder, and write what was found: a table, and a page with pictures that explains it."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import pandas as pd

from medic.data.check import check
from medic.data.check.duplicates import connected
from medic.data.images.decode import decode, shrunk
from medic.data.parallel import each
from medic.data.readers import DATA_SETS, OWN, DataSet, find_data_set, lesions_or_own
from medic.data.split import patients_known
from medic.data.stores import PRODUCT_MARK, Store, is_synthetic, mark_product
from medic.errors import ImageError, MedicError
from medic.files import replacing, write_text
from medic.task import Task


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        title: in words.
        means: what is known, and what it does to a result.
        do: what to do about it.
        mend: whether it is wrong in any case; otherwise a person has to look.
    """

    title: str
    means: str
    do: str
    mend: bool = False


_HERE = Path(__file__).parent
KINDS = {name: Kind(**said) for name, said in json.loads((_HERE / "kinds.json").read_text(encoding="utf-8")).items()}
"""By the name in a table of findings, the gravest first."""
THUMBNAIL = 240
"""Pixels of a thumbnail's longer side."""
EXAMPLES = 24
"""Findings of a kind that are shown with their pictures."""
LISTED = 500
"""Findings of a kind that are listed below the pictures; the rest is in the table only."""

_TOGETHER = 6  # duplicates of one another that a card shows
_DUPLICATES = ("identical", "near_duplicate")
# What a finding says of duplicates, and what that makes of them together.
_MARKS = {"labels differ": "labels differ", "of another patient": "two patients", "in another split": "two splits"}


def write_report(
    findings: pd.DataFrame, records: pd.DataFrame, store: Store, task: Task, path: str | os.PathLike, title: str = ""
) -> Path:
    """Write findings as an HTML file that holds its pictures, with light and dark colours, readable on a telephone.

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
    kinds = _kinds(findings)
    groups = {name: _groups(findings[findings["finding"] == name], name) for name in kinds}
    shown = {image for name in kinds for group in groups[name][:EXAMPLES] for image in group["image"].head(_TOGETHER)}
    names = sorted(image for image in shown if image in store)
    pictures = dict(zip(names, each(lambda name: _thumbnail(store, name), names, title="thumbnails"), strict=True))
    captions = _captions(records[records["image"].isin(shown)], task)
    images = {
        name: {"name": name, "picture": pictures.get(name), "label": None} | captions.get(name, {}) for name in shown
    }
    mend = int(findings["finding"].isin([name for name in kinds if _kind(name).mend]).sum())
    count = len(findings)
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (_HERE / "findings.html.j2").read_text(encoding="utf-8")
    )
    page = template.render(
        title=title or task.name,
        verdict=f"{count:,} finding{'s' * (count != 1)}: {mend:,} to mend, {count - mend:,} to look at"
        if count
        else "Nothing was found",
        synthetic=is_synthetic(store),
        facts={
            "Images": f"{len(records):,}",
            "Patients": f"{records['patient'].nunique():,}" if patients_known(records) else "not given",
            "Splits": ", ".join(f"{images:,} {name}" for name, images in records["split"].value_counts().items()),
            "Classes": f"{len(task.classes)} of the task {task.name}",
            "Images from": store.location.name or "this folder",
        },
        sections=[_section(name, groups[name], images) for name in kinds],
        listed=LISTED,
    )
    write_text(Path(path), page)
    return Path(path)


def _kinds(findings: pd.DataFrame) -> list[str]:
    found = findings["finding"].unique()
    return [name for name in KINDS if name in found] + [name for name in found if name not in KINDS]


def _kind(name: str) -> Kind:
    return KINDS.get(name, Kind(name.replace("_", " ").capitalize(), "", ""))


def _groups(rows: pd.DataFrame, name: str) -> list[pd.DataFrame]:
    """Findings that belong together: duplicates of one another; any other stands for itself."""
    if name not in _DUPLICATES or "other" not in rows:
        return [rows.iloc[[at]] for at in range(len(rows))]
    at = {image: place for place, image in enumerate(rows["image"])}
    pairs = [(at[row.image], at[row.other]) for row in rows.itertuples() if row.other in at]
    return [group for _, group in rows.groupby(connected(len(rows), pairs), sort=False)]


def _section(name: str, groups: list[pd.DataFrame], images: dict[str, dict]) -> dict:
    """What the template shows of one kind: cards where there are pictures, otherwise lines."""
    kind = _kind(name)
    pictured = any(images[image]["picture"] for group in groups[:EXAMPLES] for image in group["image"].head(_TOGETHER))
    rows = [[row for group in part for row in group.itertuples()] for part in (groups[:EXAMPLES], groups[EXAMPLES:])]
    cards = [
        {
            "rows": list(group.itertuples()),
            "images": [images[image] for image in group["image"].head(_TOGETHER)],
            "more": max(0, len(group) - _TOGETHER),
            "marks": [mark for note, mark in _MARKS.items() if group["detail"].str.contains(note).any()],
        }
        for group in groups[:EXAMPLES]
    ]
    return {
        "name": name,
        "kind": kind,
        "side": "mend" if kind.mend else "look",
        "count": sum(map(len, groups)),
        "duplicates": name in _DUPLICATES,
        "cards": cards if pictured else [],
        "first": [] if pictured else rows[0],
        "rest": rows[1],
    }


def _thumbnail(store: Store, name: str) -> str:
    """The image as a data address; empty text where it cannot be read."""
    try:
        pixels = shrunk(decode(store.read(name), at_least=THUMBNAIL), THUMBNAIL)
    except ImageError:
        return ""
    _, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _captions(records: pd.DataFrame, task: Task) -> dict[str, dict[str, str]]:
    """Of each image its label, split and, where one is known, its patient."""
    captions, known = {}, patients_known(records)
    for row in records.to_dict("records"):
        if task.kind == "multilabel":
            label = ", ".join(name for name in task.classes if row.get(name) == 1) or "none"
        else:
            label = task.classes[row["label"]]
        captions[row["image"]] = {"label": label, "split": row["split"], "patient": row["patient"] if known else ""}
    return captions


@dataclass(frozen=True, eq=False)
class Checked:
    """What was found in one set.

    Attributes:
        name: of the data set.
        images: rows of its table.
        findings: as ``medic.data.check.check`` gives them.
        table: the findings as a CSV file.
        page: the findings as an HTML file.
    """

    name: str
    images: int
    findings: pd.DataFrame
    table: Path
    page: Path

    def counts(self) -> pd.DataFrame:
        """One row a kind, the gravest first: ``finding``, ``found`` (how many), and ``first``, an example in words."""
        rows = []
        for name in _kinds(self.findings):
            theirs = self.findings[self.findings["finding"] == name]
            rows.append((name, len(theirs), ": ".join(filter(None, theirs[["image", "detail"]].iloc[0]))))
        return pd.DataFrame(rows, columns=["finding", "found", "first"])

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        counted = {row.finding: {"found": row.found, "first": row.first} for row in self.counts().itertuples()}
        places = {"table": self.table.as_posix(), "page": self.page.as_posix()}
        return {"images": self.images, "findings": counted, **places}

    def __str__(self) -> str:
        count = len(self.findings)
        lines = [f"{self.name}: {self.images:,} images, {f'{count:,} findings' if count else 'nothing found'}"]
        lines += [f"  {row.finding:22}{row.found:>7,}  {row.first}" for row in self.counts().itertuples()]
        return "\n".join([*lines, f"  see {self.page}"])


def sets_in(data: str | os.PathLike, name: str | None = None) -> dict[str, tuple[DataSet, Path]]:
    """Find the sets that a data folder holds.

    Args:
        data: a folder with a folder or zip file for each data set, named as it; one such folder itself; or a folder of
            one's own images.
        name: of the one data set that is meant, ``own`` among them; None takes all that are there.

    Returns:
        By name the data set, and where it lies. Where the folder holds no published set, is not named as one and has no
        table of the ISIC Archive, it is taken for one's own images.

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


def unknown_in(data: str | os.PathLike) -> list[str]:
    """List folders and zip files beside those of the data sets, which are called as none of them; sorted."""
    data = Path(data)
    if OWN.name in (sets := sets_in(data)) or any(source == data for _, source in sets.values()):
        return []
    known = {source.name for _, source in sets.values()} | {f"{name}.zip" for name in sets} | set(sets)
    others = [path for path in data.iterdir() if not path.name.startswith(".") and path.name not in known]
    return sorted(path.name for path in others if path.suffix == ".zip" or (path.is_dir() and not _is_product(path)))


def _is_product(folder: Path) -> bool:
    """Whether medic wrote a folder, or what is in it: ``outputs/check/retinopathy`` holds the mark."""
    return any(next(folder.glob("*/" * depth + PRODUCT_MARK), None) for depth in range(3))


def check_set(
    data_set: DataSet, source: Path, to: str | os.PathLike, *, scheduler: str | None = None, **how: object
) -> Checked:
    """Read one set, check it, and write ``findings.csv`` and ``findings.html``.

    Args:
        data_set: whose reader reads it.
        source: where it lies.
        to: the folder to write to. It is marked as a product of medic, so that no reader takes the table for labels.
        scheduler: as for ``check``.
        how: for the reader of one's own images: ``level`` or ``columns``, where they can be mistaken.

    Raises:
        MedicError: the set cannot be read, or nothing can be written.
    """
    records, store = data_set.read(source, **how)
    task = data_set.task(records)
    findings = check(records, store, task, scheduler)
    mark_product(to)
    table, page = Path(to) / "findings.csv", Path(to) / "findings.html"
    with replacing(table) as temporary:
        findings.to_csv(temporary, index=False)
    write_report(findings, records, store, task, page, data_set.name if data_set is not OWN else source.resolve().name)
    return Checked(data_set.name, len(records), findings, table, page)
