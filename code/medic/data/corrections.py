"""Corrections of labels: a journal beside the images, which readers apply; the originals are never edited."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from medic.data.records import validate
from medic.data.stores import Store
from medic.errors import MedicError
from medic.files import write_text
from medic.task import FINDINGS, NO_FINDING, Task

FILE = "corrections.csv"
"""The name under which readers look for the journal, beside the table or in the folder that they read."""
EXCLUDED, NOTHING = "(excluded)", "(none)"
"""Stand for a class where an image is left out, and for the classes of a multilabel image that has none."""
HEADER = ["when", "who", "image", "from", "to"]


class Corrections:
    """The journal of one set. Every change is on disk before the method that made it returns.

    Args:
        path: the CSV file; changes that it holds already are kept.
        records: what the source says, as a reader gives it.
        task: whose classes the labels are.
        who: makes the changes; ``USER`` when None.

    Raises:
        MedicError: the journal is damaged, has an unknown image or class, or starts from another label than the source.
    """

    def __init__(self, path: str | os.PathLike, records: pd.DataFrame, task: Task, who: str | None = None):
        if task.kind != "multilabel" and set(FINDINGS) <= set(records):
            raise MedicError(f"{task.name!r} follows from a chest X-ray's findings; correct those, with 'chest_xray'")
        self.path, self.task, self.who = Path(path), task, who or os.environ.get("USER", "unknown")
        self._original = dict(zip(records["image"], written_labels(records, task), strict=True))
        self._now = dict(self._original)
        self._journal = read(self.path)
        self._found = len(self._journal)
        for number, one in enumerate(self._journal, 1):
            image, where = one["image"], f"{self.path}, change {number}: "
            if (now := self._now.get(image)) != one["from"]:
                what = f"not {one['from']!r} but {now!r}" if now else "none of the records' images"
                raise MedicError(f"{where}{image} is {what}; keep one journal, this or the {FILE} beside the source")
            self._now[image] = _in_order(one["to"], task, where)

    def current(self, image: str) -> str:
        """Return what holds for an image now, a label or ``EXCLUDED``; raise ``MedicError`` if it is not known."""
        if image not in self._now:
            raise MedicError(f"the records have no image {image!r}, so nothing can be corrected about it")
        return self._now[image]

    def original(self, image: str) -> str:
        """Return what the source says of an image."""
        return self._original[image]

    def label(self, image: str, to: str) -> None:
        """Give an image another label: a class, for a multilabel task several with ``|`` between them, or ``NOTHING``.

        Raises:
            MedicError: unknown image or class; the file cannot be written, or has changed since it was opened here.
        """
        before, to = self.current(image), _in_order(to, self.task)
        if to != before:
            line = (datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), self.who, image, before, to)
            self._write([*self._journal, dict(zip(HEADER, line, strict=True))])
            self._now[image] = to

    def exclude(self, image: str) -> None:
        """Leave an image out; raise as ``label``."""
        self.label(image, EXCLUDED)

    def include(self, image: str) -> None:
        """Take an image that was left out in again, with the label it had before; raise as ``label``."""
        if self.current(image) == EXCLUDED:
            self.label(image, [one["from"] for one in self._journal if one["image"] == image][-1])

    def undo(self) -> dict[str, str] | None:
        """Take back, and return, the last line that was added through this object; raise as ``label``."""
        if len(self._journal) == self._found:
            return None
        *rest, last = self._journal
        self._write(rest)
        self._now[last["image"]] = last["from"]
        return last

    def table(self) -> pd.DataFrame:
        """Return the journal: text columns ``when``, ``who``, ``image``, ``from``, ``to``, in the changes' order."""
        return pd.DataFrame(self._journal, columns=HEADER, dtype="object")

    def __len__(self) -> int:
        return len(self._journal)

    def _write(self, journal: list[dict[str, str]]) -> None:
        if read(self.path) != self._journal:  # another notebook has it open, and what that has added would be lost
            raise MedicError(f"{self.path} has changed since it was opened here, so nothing was written; open it again")
        write_text(self.path, pd.DataFrame(journal, columns=HEADER).to_csv(index=False, lineterminator="\n"))
        self._journal = journal


def read(path: str | os.PathLike) -> list[dict[str, str]]:
    """Return the lines of a journal, none where there is no file; raise ``MedicError`` where it is damaged."""
    if not Path(path).exists():
        return []
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False).fillna("")
        return table[HEADER].to_dict("records")
    except (OSError, ValueError, KeyError) as error:
        must = f"it must begin with {','.join(HEADER)}"
        raise MedicError(f"{path} cannot be read as a journal of corrections ({error}); {must}") from error


def apply(records: pd.DataFrame, path: str | os.PathLike, task: Task) -> pd.DataFrame:
    """Return records as corrected: with changed labels, and without the images that are left out.

    The column ``corrected`` holds the label of the source where another holds now, and is missing for most.

    Raises:
        MedicError: there is no such file, it leaves no image, or as ``Corrections``.
    """
    if not Path(path).is_file():
        raise MedicError(f"there are no corrections {path}; correct the path")
    journal = Corrections(path, records, task)
    now = records["image"].map(journal.current)
    kept, labels = (part[now != EXCLUDED].reset_index(drop=True) for part in (records, now))
    former = kept["image"].map(journal.original).astype("string")
    former = former.where(labels != former)
    kept = kept.assign(corrected=kept["corrected"].fillna(former) if "corrected" in kept else former)
    if task.kind == "multilabel":
        present = labels.str.get_dummies("|").reindex(columns=_classes(task), fill_value=0)
        kept = kept.assign(**present, label=(labels != NOTHING).astype(int))
        if NO_FINDING in kept:
            kept[NO_FINDING] = 1 - kept["label"]
    else:
        kept = kept.assign(label=labels.map(task.classes.index), **({"class": labels} if "class" in kept else {}))
    return validate(kept, task)


def written_labels(records: pd.DataFrame, task: Task) -> list[str]:
    """Return labels as the journal writes them: the class's name, or several with ``|`` between them."""
    if task.kind != "multilabel":
        return [task.classes[label] for label in records["label"]]
    present = records[_classes(task)] == 1
    return ["|".join(present.columns[row]) or NOTHING for row in present.to_numpy()]


def beside(source: Path) -> Path:
    """Return where readers look for the journal of a set: in its folder; beside a zip file, not in it."""
    return (source.parent if source.is_file() else source) / FILE


def corrected(records: pd.DataFrame, source: Store, task: Task) -> pd.DataFrame:
    """Apply the journal that lies beside the source, if one does, and say so on stderr; raise as ``apply``."""
    path = beside(source.location)
    if not path.is_file():
        return records
    found = apply(records, path, task)
    changed = f"{found['corrected'].notna().sum()} labels changed, {len(records) - len(found)} images left out"
    print(f"{path.name} in {path.resolve().parent.name}: {changed}", file=sys.stderr)
    return found


def _in_order(label: str, task: Task, where: str = "") -> str:
    """The label with its findings in the task's order."""
    if label == EXCLUDED:
        return label
    names = [label] if task.kind != "multilabel" else [] if label == NOTHING else label.split("|")
    if unknown := set(names) - set(_classes(task)):
        there = ", ".join(_classes(task))
        raise MedicError(f"{where}the task {task.name!r} has no class {min(unknown)!r}; it has: {there}")
    return "|".join(sorted(set(names), key=task.classes.index)) or NOTHING


def _classes(task: Task) -> list[str]:
    return [name for name in task.classes if task.kind != "multilabel" or name != NO_FINDING]
