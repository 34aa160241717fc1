"""Look at images and correct their labels; every change goes to the journal of corrections at once."""

from collections import defaultdict
from typing import Any

import pandas as pd
import traitlets
from matplotlib.figure import Figure

from medic.data.corrections import EXCLUDED, NOTHING, Corrections
from medic.data.stores import Store, is_synthetic
from medic.errors import MedicError
from medic.task import NO_FINDING, Task
from medic.widgets.pictured import ImagesWidget, facts, front_end

PAGE = 10  # thumbnails in the strip
NONE_FOUND = pd.DataFrame(columns=["image", "finding", "detail"])


class LabelEditor(ImagesWidget):
    """Page through images, change labels, leave images out, undo; with the mouse or the keyboard.

    Keys: left and right arrow to page, 1 to 9 for a class, x to leave out and to take in again, u or Ctrl+Z to undo.

    Args:
        records: before any correction, as a reader gives them; those that ``corrections`` were opened with.
        store: where their images are.
        task: whose classes the labels are.
        corrections: the journal that takes the changes.
        findings: what is suspicious, with the columns ``image``, ``finding`` and ``detail`` as
            ``medic.data.check.check`` gives them.

    Attributes:
        filter_label: show only images that now have this class (``(none)`` for multilabel images without any); all
            when empty.
        filter_suspicion: ``any`` (something was found), ``finding:blurred`` (one kind), ``corrected`` or ``excluded``;
            all when empty. A list is made when a filter is set: images stay in it while they are worked on.
        position: which of the filtered images is shown, from 0.
        shown: names of the filtered images.

    Raises:
        MedicError: the corrections were opened with other records.
    """

    _esm, _css = front_end("label_editor", "js"), front_end("label_editor", "css")

    filter_label = traitlets.Unicode("").tag(sync=True)
    filter_suspicion = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        records: pd.DataFrame,
        store: Store,
        task: Task,
        corrections: Corrections,
        findings: pd.DataFrame = NONE_FOUND,
    ):
        self.corrections, self.task = corrections, task
        self._records = records.drop_duplicates("image").set_index("image", drop=False)
        self._findings, self._kinds = defaultdict(list), defaultdict(set)
        for row in findings[findings["image"].isin(self._records.index)].sort_values("finding").itertuples():
            self._findings[row.image].append((row.finding.replace("_", " "), str(row.detail)))
            self._kinds[f"finding:{row.finding}"].add(row.image)
        title = f"Labels of {task.name.replace('_', ' ')}"
        super().__init__(title, is_synthetic(store), store, list(self._records.index))
        self.refresh()
        self.observe(self._filter, ["filter_label", "filter_suspicion"])

    def _filter(self, _: Any) -> None:
        passing = set.intersection(*(groups[getattr(self, trait)] for trait, groups in self._choices.items()))
        self._list([image for image in self._records.index if image in passing])

    def _do(self, message: Any) -> None:
        match message:
            case {"do": "label", "image": str(image), "to": str(to)}:
                self.corrections.label(image, self._changed(image, to))
                notice = f"{image} is {self.corrections.current(image)}"
            case {"do": "exclude", "image": str(image)}:
                excluded = self.corrections.current(image) == EXCLUDED
                (self.corrections.include if excluded else self.corrections.exclude)(image)
                notice = f"{image} is {'in again' if excluded else 'left out'}"
            case {"do": "undo"}:
                undone = self.corrections.undo()
                notice = "Nothing of this session is left to undo"
                if undone is not None:
                    notice = f"Undone: {undone['image']} is {undone['from']} again"
                    if undone["image"] in self.shown:
                        self.position = self.shown.index(undone["image"])
            case _:
                return super()._do(message)
        return self.refresh(notice)

    def _changed(self, image: str, name: str) -> str:
        """The label that the page means: a class, or the image's classes with one of them turned on or off."""
        if self.task.kind != "multilabel" or name == NOTHING:
            return name
        now = self.corrections.current(image)
        if now == EXCLUDED:
            raise MedicError(f"{image} is left out; take it in again (x) before its findings are changed")
        return "|".join(sorted({*now.split("|")} - {NOTHING} ^ {name})) or NOTHING

    def refresh(self, notice: str = "") -> None:
        """Show what now holds, also where the journal was changed by other means."""
        several = self.task.kind == "multilabel"
        names = [name for name in self.task.classes if not several or name != NO_FINDING] + [NOTHING] * several
        now = {image: self.corrections.current(image) for image in self._records.index}
        excluded = {image for image in now if now[image] == EXCLUDED}
        corrected = {image for image in now if now[image] != self.corrections.original(image)} - excluded
        labelled = {name: {image for image in now if name in now[image].split("|")} for name in names}
        suspicious = {"any": set(self._findings), **self._kinds, "corrected": corrected, "excluded": excluded}
        self._choices = {"filter_label": {"": {*now}} | labelled, "filter_suspicion": {"": {*now}} | suspicious}
        self._draw(notice)

    def _draw(self, notice: str = "") -> None:
        start, groups = self.position // PAGE * PAGE, self._choices.items()
        image = self.shown[self.position] if self.shown else None
        self.show(
            several=self.task.kind == "multilabel",
            counts={trait: [[name, len(found)] for name, found in group.items()] for trait, group in groups},
            filters={trait: getattr(self, trait) for trait in self._choices},
            changes=len(self.corrections),
            file=self.corrections.path.name,
            shown=len(self.shown),
            position=self.position,
            start=start,
            strip=[self._card(image) for image in self.shown[start : start + PAGE]],
            current=image and self._card(image) | {"facts": facts(self._records.loc[image], self.task)},
            notice=notice,
        )

    def _card(self, image: str) -> dict:
        label, original = self.corrections.current(image), self.corrections.original(image)
        about = {"image": image, "label": label, "original": original, "amiss": label != original}
        return about | {"findings": self._findings.get(image, [])}

    def __repr__(self) -> str:
        corrected, excluded = (len(self._choices["filter_suspicion"][name]) for name in ("corrected", "excluded"))
        so_far = f"{corrected} label{'s' * (corrected != 1)} corrected, {excluded} left out"
        return f"{len(self._records)} images: {so_far} ({self.corrections.path.name})"

    def static(self) -> Figure:
        """Return the page at which the editor stands (else the first): each image's label and what is suspicious."""
        cards = self.state["strip"] or [self._card(image) for image in self._records.index[:PAGE]]
        captions = []
        for card in cards:
            words = [f"{card['original']} → {card['label']}" if card["amiss"] else card["label"]]
            words += [kind for kind, _ in card["findings"][:1]]
            captions.append("\n".join(word if len(word) < 28 else f"{word[:26]}…" for word in words))
        return self._grid(cards, captions, 5, f"{len(cards)} of {self!r}")
