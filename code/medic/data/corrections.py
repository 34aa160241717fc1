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
EXCLUDED, NOTHING = "(excluded)", "(none)"
"""Stand for a class where an image is left out, and for the classes of a multilabel image that has none."""
HEADER = ("when", "who", "image", "from", "to")


@dataclass(frozen=True)
class Correction:
    """One change.

    Attributes:
        when: ISO 8601, UTC, to the second.
        who: the name of the person who made it.
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
    """Return labels as the journal writes them: the class's name, or several with ``|`` between them.

    "No Finding" is no class here: it follows from the others.

    Raises:
        MedicError: the task only asks whether there is any finding, and the records have a column for each: the answer
            follows from the findings, which are what can be corrected.
    """
    if task.kind != "multilabel":
        if set(FINDINGS) <= set(records):
            raise MedicError(
                f"the task {task.name!r} follows from the findings of a chest X-ray; correct those, with the task "
                "'chest_xray'"
            )
        return [task.classes[label] for label in records["label"]]
    names = _classes(task)
    rows = records[names].to_numpy() == 1
    return ["|".join(name for name, present in zip(names, row, strict=True) if present) or NOTHING for row in rows]


class Corrections:
    """The journal of one set. Every change is on disk before the method that made it returns.

    Args:
        path: the CSV file, with the columns ``when,who,image,from,to``; what is there already is gone on with.
        records: what the source says, as a reader gives it.
        task: whose classes the labels are.
        who: makes the changes; by default the account's name.

    Raises:
        MedicError: as ``apply``.
    """

    def __init__(self, path: str | os.PathLike, records: pd.DataFrame, task: Task, who: str | None = None):
        self.path, self.task, self.who = Path(path), task, who or _account()
        self._original = dict(zip(records["image"], written_labels(records, task), strict=True))
        self._journal = read(self.path) if self.path.exists() else []
        self._now = _followed(self._journal, self._original, task, self.path, "corrected" in records)
        self._found = len(self._journal)

    def current(self, image: str) -> str:
        """Return what holds for an image now: a class's name, or ``EXCLUDED``.

        Raises:
            MedicError: the records have no such image.
        """
        if image not in self._now:
            raise MedicError(f"the records have no image {image!r}, so nothing can be corrected about it")
        return self._now[image]

    def original(self, image: str) -> str:
        """Return what the source says of an image; raises as ``current``."""
        self.current(image)
        return self._original[image]

    def label(self, image: str, to: str) -> None:
        """Give an image another class; an excluded one is in again by that. Nothing happens if it has it already.

        Args:
            image: its name in the store.
            to: a class of the task; for a multilabel task several with ``|`` between them, or ``NOTHING``.

        Raises:
            MedicError: unknown image or class; the file cannot be written, or has changed since it was opened here.
                Then nothing has changed.
        """
        self._change(image, _in_order(to, self.task))

    def exclude(self, image: str) -> None:
        """Leave an image out; raises as ``label``."""
        self._change(image, EXCLUDED)

    def include(self, image: str) -> None:
        """Take an excluded image in again, with the class it had before; raises as ``label``."""
        if self.current(image) == EXCLUDED:
            self._change(image, [one for one in self._journal if one.image == image][-1].before)

    def undo(self) -> Correction | None:
        """Take back the last change that this object made, in the file too; None where there is none (any more).

        Raises:
            MedicError: as ``label``.
        """
        if len(self._journal) == self._found:
            return None
        *rest, last = self._journal
        self._write(rest)
        self._now[last.image] = last.before
        return last

    def table(self) -> pd.DataFrame:
        """Return the journal: text columns ``when``, ``who``, ``image``, ``from``, ``to``, in the changes' order."""
        return pd.DataFrame([astuple(one) for one in self._journal], columns=list(HEADER), dtype="object")

    def __len__(self) -> int:
        return len(self._journal)

    def _change(self, image: str, to: str) -> None:
        before = self.current(image)
        if to != before:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._write([*self._journal, Correction(now, self.who, image, before, to)])
            self._now[image] = to

    def _write(self, journal: list[Correction]) -> None:
        # Two notebooks may have the journal open: the second would write over what the first has added.
        if (read(self.path) if self.path.exists() else []) != self._journal:
            raise MedicError(
                f"{self.path} has changed since it was opened here, so nothing was written; open it again, and go on"
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEADER, *map(astuple, journal)])
        write_text(self.path, text.getvalue())
        self._journal = journal


def read(path: str | os.PathLike) -> list[Correction]:
    """Read the changes in a journal, in their order.

    Raises:
        MedicError: there is none, or it is damaged.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        header, *lines = [tuple(line) for line in csv.reader(io.StringIO(text, newline="")) if line] or [()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedicError(f"the corrections {path} cannot be read ({error}); correct the path or the file") from error
    if header != HEADER:
        raise MedicError(f"{path} is no journal of corrections: its first line is not {','.join(HEADER)}")
    for number, line in enumerate(lines, 1):
        if len(line) != len(HEADER) or not all(line[2:]):
            raise MedicError(f"{path}, change {number}, does not have {', '.join(HEADER)}, each filled in; mend it")
    return [Correction(*line) for line in lines]


def apply(records: pd.DataFrame, path: str | os.PathLike, task: Task) -> pd.DataFrame:
    """Return records as corrected: with changed labels, and without the images that are left out.

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
    now = records["image"].map(_followed(read(path), original, task, Path(path), "corrected" in records))
    kept = records[now != EXCLUDED].reset_index(drop=True)
    if kept.empty:
        raise MedicError(f"{path} leaves out all {len(records)} images; take some in again")
    labels, former = now[now != EXCLUDED].reset_index(drop=True), kept["image"].map(original).astype("string")
    former = former.where(labels != former)
    kept = kept.assign(corrected=kept["corrected"].fillna(former) if "corrected" in kept else former)
    if task.kind == "multilabel":
        present = labels.str.split("|").map(set)
        kept = kept.assign(
            **{name: [int(name in names) for names in present] for name in _classes(task)},
            label=(labels != NOTHING).astype(int),
        )
        if NO_FINDING in kept:
            kept = kept.assign(**{NO_FINDING: 1 - kept["label"]})
    else:
        kept = kept.assign(label=labels.map(task.classes.index), **({"class": labels} if "class" in kept else {}))
    return validate(kept, task)


def beside(source: Path) -> Path:
    """Return where readers look for the journal of a set: in its folder; beside a zip file, not in it."""
    return (source.parent if source.is_file() else source) / FILE


def corrected(records: pd.DataFrame, source: Store, task: Task) -> pd.DataFrame:
    """Apply the journal that lies at the source, if one does, and say so: what every reader does at its end.

    Args:
        records: as read.
        source: what holds the table, or the images where there is none; the journal lies where ``beside`` says.
        task: whose classes the labels are.

    Raises:
        MedicError: as ``apply``.
    """
    path = beside(source.location)
    if not path.is_file():
        packed = source.names() if isinstance(source, ZipStore) else []
        inside = [name for name in packed if name.rpartition("/")[2] == FILE]
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


def _followed(
    journal: list[Correction], original: dict[str, str], task: Task, path: Path, before: bool
) -> dict[str, str]:
    """What holds for each image after all changes. ``before``: another journal was applied already."""
    now = dict(original)
    again = f"; or {FILE} beside the source, which its reader has applied, says the same: keep one of the two" * before
    for number, one in enumerate(journal, 1):
        where = f"{path}, change {number},"
        if one.image not in now:
            raise MedicError(
                f"{where} corrects {one.image!r}, which the records do not have; remove its line, or correct the name"
                + again
            )
        if now[one.image] != one.before:
            raise MedicError(
                f"{where} takes {one.image} from {one.before!r}, but the source says {now[one.image]!r}; look at the "
                f"image again and remove the line{again}"
            )
        if one.after != EXCLUDED and one.after != (asked := _in_order(one.after, task, f"{where} ")):
            raise MedicError(f"{where} write {one.after!r} as {asked!r}")
        now[one.image] = one.after
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
