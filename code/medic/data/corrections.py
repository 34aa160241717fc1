"""Corrections of labels: a journal beside the images, which readers apply; the originals are never edited."""

from __future__ import annotations

import csv
import getpass
import io
import os
import sys
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from medic.data.records import validate
from medic.data.stores import Store, ZipStore
from medic.errors import MedicError
from medic.files import write_text
from medic.task import FINDINGS, NO_FINDING, Task

FILE = "corrections.csv"
"""The name under which readers look for the journal, beside the table or in the folder that they read."""
EXCLUDED = "(excluded)"
"""Stands for a class where an image is left out."""
NOTHING = "(none)"
"""Stands for the classes of a multilabel image that has none."""
HEADER = ("when", "who", "image", "from", "to")


@dataclass(frozen=True)
class Correction:
    """One change.

    Attributes:
        when: ISO 8601, UTC, to the second.
        who: the name of whoever made it.
        image: its name in the store.
        before: class name, or ``EXCLUDED``; several classes of a multilabel task stand as ``Mass|Nodule``.
        after: the same, of what holds from then on.
    """

    when: str
    who: str
    image: str
    before: str
    after: str


def written_labels(records: pd.DataFrame, task: Task) -> list[str]:
    """What records say, as the journal writes it: the class's name, or several with ``|`` between them.

    "No Finding" is no class here: it follows from the others.

    Raises:
        MedicError: the records have a column for each finding and the task only asks whether there is any: its answer
            follows from the findings, which are what can be corrected.
    """
    if task.kind != "multilabel" and set(FINDINGS) <= set(records):
        raise MedicError(
            f"the task {task.name!r} follows from the findings of a chest X-ray; correct those, with the task "
            "'chest_xray'"
        )
    if task.kind != "multilabel":
        return [task.classes[label] for label in records["label"]]
    names = _classes(task)
    rows = records[names].to_numpy() == 1
    return ["|".join(name for name, present in zip(names, row, strict=True) if present) or NOTHING for row in rows]


class Corrections:
    """The journal of one set. Every change is on disk before the method that made it returns.

    Args:
        path: the CSV file, with the columns ``when,who,image,from,to``; what is there already is gone on with.
        records: the records before any correction, as a reader gives them.
        task: whose classes the labels are.
        who: who makes the changes; the name of the account by default.

    Raises:
        MedicError: the file is no such journal, or does not fit the records.
    """

    def __init__(self, path: str | os.PathLike, records: pd.DataFrame, task: Task, who: str | None = None):
        self.path = Path(path)
        self.task = task
        self.who = who or _account()
        self._made = 0
        self._original = dict(zip(records["image"], written_labels(records, task), strict=True))
        there = _numbered(self.path) if self.path.exists() else []
        self._journal = [correction for _, correction in there]
        self._now = _followed(there, self._original, task, self.path, _is_corrected(records))

    def current(self, image: str) -> str:
        """What holds for an image now: a class's name, or ``EXCLUDED``.

        Raises:
            MedicError: the records have no such image.
        """
        if image not in self._now:
            raise MedicError(f"the records have no image {image!r}, so nothing can be corrected about it")
        return self._now[image]

    def original(self, image: str) -> str:
        """What the source says of an image; raises as ``current``."""
        self.current(image)
        return self._original[image]

    def label(self, image: str, to: str) -> None:
        """Give an image another class; an excluded one is in again by that. Nothing happens if it has it already.

        Args:
            image: its name in the store.
            to: a class of the task; for a multilabel task several with ``|`` between them, or ``NOTHING``.

        Raises:
            MedicError: unknown image or class; the file cannot be written, or somebody else has changed it meanwhile.
                Then nothing has changed.
        """
        self._change(image, _in_order(to, self.task))

    def exclude(self, image: str) -> None:
        """Leave an image out; raises as ``label``."""
        self._change(image, EXCLUDED)

    def include(self, image: str) -> None:
        """Take an excluded image in again, with the class it had before; raises as ``label``."""
        if self.current(image) != EXCLUDED:
            return
        earlier = [correction for correction in self._journal if correction.image == image]
        self._change(image, earlier[-1].before)

    def undo(self) -> Correction | None:
        """Take the last change back that this object made, in the file too; None where there is none (any more).

        Raises:
            MedicError: the file cannot be written, or somebody else has changed it (then nothing has changed).
        """
        if not self._made:
            return None
        *rest, last = self._journal
        self._write(rest)
        self._made -= 1
        self._now[last.image] = last.before
        return last

    def table(self) -> pd.DataFrame:
        """The journal: text columns ``when``, ``who``, ``image``, ``from``, ``to``, in the order of the changes."""
        return pd.DataFrame([astuple(correction) for correction in self._journal], columns=list(HEADER), dtype="object")

    def __len__(self) -> int:
        return len(self._journal)

    def _change(self, image: str, to: str) -> None:
        before = self.current(image)
        if to == before:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._write([*self._journal, Correction(now, self.who, image, before, to)])
        self._made += 1
        self._now[image] = to

    def _write(self, journal: list[Correction]) -> None:
        # Two notebooks may have the journal open: the second would write over what the first has added.
        if (read(self.path) if self.path.exists() else []) != self._journal:
            raise MedicError(
                f"{self.path} has changed since it was opened here, so nothing was written; open it again, and go on"
            )
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(HEADER)
        rows.writerows(astuple(correction) for correction in journal)
        write_text(self.path, text.getvalue())
        self._journal = journal


def read(path: str | os.PathLike) -> list[Correction]:
    """The changes in a journal, in their order.

    Raises:
        MedicError: there is none, or it is damaged; the message names the line.
    """
    return [correction for _, correction in _numbered(Path(path))]


def _numbered(path: Path) -> list[tuple[int, Correction]]:
    """The changes in a journal, each with the number of its line."""
    try:
        rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        lines = [(rows.line_num, line) for line in rows if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedicError(f"the corrections {path} cannot be read ({error}); correct the path or the file") from error
    if not lines or tuple(lines[0][1]) != HEADER:
        raise MedicError(f"{path} is no journal of corrections: its first line is not {','.join(HEADER)}")
    for number, line in lines[1:]:
        if len(line) != len(HEADER) or not all(line[2:]):
            raise MedicError(f"{path}, line {number}, does not have {', '.join(HEADER)}, each filled in; mend it")
    return [(number, Correction(*line)) for number, line in lines[1:]]


def apply(records: pd.DataFrame, path: str | os.PathLike, task: Task) -> pd.DataFrame:
    """Records as corrected: changed labels, and without the images that are left out.

    Args:
        records: as a reader gives them.
        path: the journal.
        task: whose classes the labels are.

    Returns:
        The records, with a column ``corrected``: the former label as the journal writes it, missing for most. Where
        another journal was applied before, it stays the label of the source.

    Raises:
        MedicError: the journal is absent or damaged, names an image that the records do not have or a class that the
            task does not, or starts from another label than the source now has.
    """
    original = dict(zip(records["image"], written_labels(records, task), strict=True))
    now = _followed(_numbered(Path(path)), original, task, Path(path), _is_corrected(records))
    kept = records[[now[image] != EXCLUDED for image in records["image"]]].reset_index(drop=True)
    if kept.empty:
        raise MedicError(f"{path} leaves out all {len(records)} images; take some in again")
    corrected = pd.Series([now[image] != original[image] for image in kept["image"]], dtype=bool)
    labels = [now[image] for image in kept["image"]]
    former = kept["image"].map(original).where(corrected).astype("string")
    columns: dict[str, object] = {"corrected": kept["corrected"].fillna(former) if "corrected" in kept else former}
    if task.kind == "multilabel":
        present = [set(label.split("|")) for label in labels]
        columns |= {name: [int(name in names) for names in present] for name in _classes(task)}
        columns["label"] = [int(label != NOTHING) for label in labels]
        if NO_FINDING in kept:
            columns[NO_FINDING] = [int(label == NOTHING) for label in labels]
    else:
        columns["label"] = [task.classes.index(label) for label in labels]
        if "class" in kept:
            columns["class"] = labels
    return validate(kept.assign(**columns), task)


def beside(source: Path) -> Path:
    """Where readers look for the journal of a set: in its folder; beside a zip file, not in it."""
    return (source.parent if source.is_file() else source) / FILE


def corrected(records: pd.DataFrame, source: Store, task: Task) -> pd.DataFrame:
    """What every reader does at its end: apply the journal that lies at the source, if one does, and say so.

    Args:
        records: as read.
        source: what holds the table, or the images where there is none; the journal lies where ``beside`` says.
        task: whose classes the labels are.

    Raises:
        MedicError: as ``apply``.
    """
    path, packed = beside(source.location), isinstance(source, ZipStore)
    if not path.is_file():
        inside = [name for name in source.names() if name.rpartition("/")[2] == FILE] if packed else []
        if inside:
            print(f"{inside[0]} in {source.location.name} is not applied: put it beside the zip file", file=sys.stderr)
        return records
    found = apply(records, path, task)
    print(
        f"{path.name} in {path.resolve().parent.name}: {int(found['corrected'].notna().sum())} labels changed, "
        f"{len(records) - len(found)} images left out",
        file=sys.stderr,
    )
    return found


def _is_corrected(records: pd.DataFrame) -> bool:
    """Whether a reader has found a journal beside its source and applied it."""
    return "corrected" in records


def _followed(
    journal: list[tuple[int, Correction]], original: dict[str, str], task: Task, path: Path, before: bool
) -> dict[str, str]:
    """What holds for each image after all changes; each must start from what held before it.

    ``before`` says whether another journal was applied already, which may be why this one does not fit.
    """
    now = dict(original)
    again = f"; or {FILE} beside the source, which its reader has applied, says the same: keep one of the two"
    for number, correction in journal:
        if correction.image not in now:
            raise MedicError(
                f"{path}, line {number}, corrects {correction.image!r}, which the records do not have; remove the "
                f"line, or correct the name{again * before}"
            )
        if now[correction.image] != correction.before:
            raise MedicError(
                f"{path}, line {number}, changes {correction.image} from {correction.before!r}, but it is "
                f"{now[correction.image]!r} there; the source has changed since, look at the image again and "
                f"remove the line{again * before}"
            )
        for label in (correction.before, correction.after):
            if label != EXCLUDED and label != _in_order(label, task, f"{path}, line {number}: "):
                raise MedicError(f"{path}, line {number}: write {label!r} as {_in_order(label, task)!r}")
        now[correction.image] = correction.after
    return now


def _in_order(label: str, task: Task, where: str = "") -> str:
    """A label with its names in the task's order."""
    several = task.kind == "multilabel"
    names = [] if several and label == NOTHING else label.split("|") if several else [label]
    unknown = [name for name in names if name not in _classes(task)]
    if unknown:
        raise MedicError(
            f"{where}the task {task.name!r} has no class {unknown[0]!r}; it has: {', '.join(_classes(task))}"
        )
    return ("|".join(name for name in _classes(task) if name in names) or NOTHING) if several else label


def _classes(task: Task) -> list[str]:
    return [name for name in task.classes if task.kind != "multilabel" or name != NO_FINDING]


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
