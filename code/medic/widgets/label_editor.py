"""Look at images and correct their labels; every change goes to the journal of corrections at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pandas as pd
import traitlets
from matplotlib.figure import Figure

from medic import plots
from medic.data.corrections import EXCLUDED, NOTHING, Corrections
from medic.data.stores import Store, is_synthetic
from medic.errors import MedicError
from medic.task import NO_FINDING, Task
from medic.widgets.pictured import PicturedWidget, facts, front_end, marked, pixels_or_grey, titled

PAGE = 10
"""Thumbnails in the strip."""
_TOLD = 6
"""Changes that the page lists; the journal has them all."""


class LabelEditor(PicturedWidget):
    """Page through images, change labels, leave images out, undo; with the mouse or the keyboard.

    Keys: left and right arrow to page, 1 to 9 for a class, x to leave out and to take in again, u or Ctrl+Z to undo.

    Args:
        records: before any correction, as a reader gives them; those that ``corrections`` were opened with.
        store: where their images are.
        task: whose classes the labels are.
        corrections: the journal that takes the changes.
        findings: what is suspicious, with the columns ``image``, ``finding`` and ``detail`` as
            ``medic.data.check.check`` gives them; None for nothing.

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

    _esm = front_end("label_editor", "js")
    _css = front_end("label_editor", "css")

    filter_label = traitlets.Unicode("").tag(sync=True)
    filter_suspicion = traitlets.Unicode("").tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        records: pd.DataFrame,
        store: Store,
        task: Task,
        corrections: Corrections,
        findings: pd.DataFrame | None = None,
    ):
        self.corrections, self.task = corrections, task
        self._records = records.drop_duplicates("image").set_index("image", drop=False)
        self._findings: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in () if findings is None else findings.itertuples():
            if row.image in self._records.index:
                self._findings[row.image].append((row.finding, str(row.detail)))
        self._classes = [name for name in task.classes if task.kind != "multilabel" or name != NO_FINDING]
        self._synthetic = is_synthetic(store)
        for image in self._records.index:
            corrections.current(image)  # says so if it does not know the image
        self.shown = list(self._records.index)
        super().__init__(store, self.shown)
        self.observe(self._filter, ["filter_label", "filter_suspicion"])
        self.observe(lambda _: self._show(), ["position"])
        self.refresh()

    @property
    def current(self) -> str | None:
        """The image that is shown large; None where the filters let none through."""
        return self.shown[self.position] if self.shown else None

    @traitlets.validate("position")
    def _within(self, proposal: Any) -> int:
        return max(0, min(proposal.value, len(self.shown) - 1))

    @traitlets.validate("filter_label")
    def _is_label(self, proposal: Any) -> str:
        return self._one_of(proposal.value, ["", *self._classes, *self._none()])

    @traitlets.validate("filter_suspicion")
    def _is_suspicion(self, proposal: Any) -> str:
        kinds = [f"finding:{kind}" for kind in self._kinds()]
        return self._one_of(proposal.value, ["", "any", "corrected", "excluded", *kinds])

    def _one_of(self, value: str, known: list[str]) -> str:
        if value not in known:
            raise traitlets.TraitError(f"there is no filter {value!r}; there is: {', '.join(known[1:])}")
        return value

    def _none(self) -> list[str]:
        return [NOTHING] if self.task.kind == "multilabel" else []

    def _kinds(self) -> list[str]:
        return sorted({kind for found in self._findings.values() for kind, _ in found})

    def _filter(self, _: Any = None) -> None:
        keep = self._passes(self.filter_label, self.filter_suspicion)
        self.shown = [image for image in self._records.index if keep(image)]
        if self.position:
            self.position = 0  # which shows the new list
        else:
            self._show()

    def _passes(self, label: str, suspicion: str):
        kind = suspicion.partition(":")[2]
        rules = {
            "any": lambda image: image in self._findings,
            "corrected": self._is_corrected,
            "excluded": lambda image: self.corrections.current(image) == EXCLUDED,
        }
        rule = rules.get(
            suspicion, lambda image: not kind or any(kind == one for one, _ in self._findings.get(image, ()))
        )
        return lambda image: (not label or label in self.corrections.current(image).split("|")) and rule(image)

    def _is_corrected(self, image: str) -> bool:
        return self.corrections.current(image) not in (EXCLUDED, self.corrections.original(image))

    def received(self, message: Any) -> None:
        """Make a change: ``label`` (to a class; for multilabel tasks it is turned on or off), ``exclude``, ``undo``.

        Raises:
            MedicError: nothing of the kind, an unknown image or class, or the journal cannot be written.
        """
        match message:
            case {"do": "label", "image": image, "to": str(to)}:
                self.corrections.label(self.known(image), self._with(image, to))
                notice = f"{image} is {self.corrections.current(image)}"
            case {"do": "exclude", "image": image}:
                excluded = self.corrections.current(self.known(image)) == EXCLUDED
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
                return super().received(message)
        return self.refresh(notice)

    def _with(self, image: str, name: str) -> str:
        """The label that the page means: a class, or the image's classes with one of them turned on or off."""
        if self.task.kind != "multilabel" or name == NOTHING:
            return name
        now = self.corrections.current(image)
        if now == EXCLUDED:
            raise MedicError(f"{image} is left out; take it in again (x) before its findings are changed")
        return "|".join(sorted({*now.split("|")} - {NOTHING} ^ {name})) or NOTHING

    def refresh(self, notice: str = "") -> None:
        """Show what now holds, also where the journal was changed by other means."""
        current = {image: self.corrections.current(image) for image in self._records.index}
        counts = Counter(name for label in current.values() for name in label.split("|"))
        kinds = Counter(kind for found in self._findings.values() for kind in {kind for kind, _ in found})
        corrected = sum(map(self._is_corrected, current))
        names = [*self._classes, *self._none()]
        self._counted = {
            "classes": [[name, counts[name]] for name in self._classes],
            "labels": [["", "all labels", len(current)], *([name, name, counts[name]] for name in names)],
            "suspicions": [
                ["", "all images", len(current)],
                ["any", "anything suspicious", len(self._findings)],
                *([f"finding:{kind}", kind.replace("_", " "), kinds[kind]] for kind in self._kinds()),
                ["corrected", "label corrected", corrected],
                ["excluded", "left out", counts[EXCLUDED]],
            ],
            "images": len(current),
            "excluded": counts[EXCLUDED],
            "corrected": corrected,
            "done": self._done(),
            "changes": len(self.corrections),
            "file": self.corrections.path.name,
        }
        self._show(notice)

    def _show(self, notice: str = "") -> None:
        """Give the page the image at the present position; paging must not count a hundred thousand labels anew."""
        start = self.position // PAGE * PAGE
        about = {
            "title": marked(f"Labels of {self.task.name.replace('_', ' ')}", self._synthetic),
            "several": self.task.kind == "multilabel",
            "shown": len(self.shown),
            "position": self.position,
            "filter_label": self.filter_label,
            "filter_suspicion": self.filter_suspicion,
            "start": start,
            "strip": [self._card(image) for image in self.shown[start : start + PAGE]],
            "current": self._detail(self.current) if self.current else None,
            "notice": notice,
            "error": "",
        }
        self.set_trait("state", self._counted | about)

    def _card(self, image: str) -> dict:
        return {
            "image": image,
            "label": self.corrections.current(image),
            "excluded": self.corrections.current(image) == EXCLUDED,
            "corrected": self._is_corrected(image),
            "suspicious": image in self._findings,
        }

    def _detail(self, image: str) -> dict:
        label, original = self.corrections.current(image), self.corrections.original(image)
        names = label.split("|")
        return self._card(image) | {
            "original": original,
            "has": [name for name in self._classes if name in names],
            "facts": facts(self._records.loc[image], self.task),
            "findings": [[kind.replace("_", " "), detail] for kind, detail in self._findings.get(image, ())],
        }

    def _done(self) -> list[str]:
        last = self.corrections.table().tail(_TOLD).iloc[::-1]
        return [f"{row['image']}: {row['from']} → {row['to']}" for row in last.to_dict("records")]

    def summary(self) -> str:
        """Images, corrections and where they are kept, in one line."""
        return f"{len(self._records)} images: {self._so_far()} ({self.corrections.path.name})"

    def _so_far(self) -> str:
        corrected, excluded = self.state["corrected"], self.state["excluded"]
        return f"{corrected} label{'s' * (corrected != 1)} corrected, {excluded} left out"

    def static(self) -> Figure:
        """The page of images at which the editor stands, each with its label; corrected and suspicious ones say so."""
        start = self.state["start"]
        images = self.shown[start : start + PAGE] or list(self._records.index[:PAGE])
        captions = [self._caption(image) for image in images]
        figure = plots.image_grid(
            [pixels_or_grey(self._store, image, 160) for image in images],
            captions,
            columns=min(5, len(images)),
            side=1.5,
        )
        for axes, image in zip(figure.axes, images, strict=False):
            if self.corrections.current(image) != self.corrections.original(image):
                axes.title.set_color(plots.COLOURS[1])
        text = f"{len(images)} of {len(self._records)} images: {self._so_far()}"
        return titled(figure, text, self._synthetic)

    def _caption(self, image: str) -> str:
        now, original = self.corrections.current(image), self.corrections.original(image)
        words = [now if now == original else f"{original} → {now}"]
        words += [kind.replace("_", " ") for kind, _ in self._findings.get(image, ())][:1]
        return "\n".join(word if len(word) < 28 else f"{word[:26]}…" for word in words)
