"""Click through what a model decided: by outcome, by confidence, image by image."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from medic import plots
from medic.data.stores import Store
from medic.widgets.pictured import PicturedWidget, facts, front_end, marked, pixels_or_grey, titled
from medic.widgets.threshold_explorer import called, questions

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation

PAGE = 18
"""Images of the grid."""
_PICTURED = 12
"""Images of the static picture, which has to stay small."""
_BINARY = {(1, 0): "false negative", (0, 1): "false positive", (1, 1): "true positive", (0, 0): "true negative"}
_ORDERS = {"unsure": "least sure first", "sure": "most sure first", "listed": "as listed"}


class ResultsViewer(PicturedWidget):
    """A grid of images by outcome and confidence; a click, or Enter, shows one large with its probabilities.

    Confidence is the probability of what was decided: for two classes that of the class on whose side of the threshold
    the image falls.

    Args:
        evaluation: of any task.
        store: where the images of its records are.

    Attributes:
        finding: for multilabel tasks the class that is looked at; the second class where there are two, else empty.
        threshold: of that finding; starts at the model's operating point, and may be linked to a
            ``ThresholdExplorer``. Without meaning where a task chooses among several classes.
        outcome: ``true positive``, ``false positive``, ``true negative``, ``false negative`` where a threshold
            decides; otherwise ``right``, ``wrong`` or such as ``Mild → Severe``, truth first. All when empty.
        order: ``unsure``, ``sure`` or ``listed``.
        low: least confidence shown, 0..1.
        high: highest confidence shown, 0..1.
        page: of the grid, from 0.
        chosen: the image that is shown large; none when empty.
        shown: names of the images that pass, in their order.
    """

    _esm = front_end("results_viewer", "js")
    _css = front_end("results_viewer", "css")

    finding = traitlets.Unicode("").tag(sync=True)
    threshold = traitlets.Float(0.5, min=0.0, max=1.0).tag(sync=True)
    outcome = traitlets.Unicode("").tag(sync=True)
    order = traitlets.Enum(list(_ORDERS), "unsure").tag(sync=True)
    low = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    high = traitlets.Float(1.0, min=0.0, max=1.0).tag(sync=True)
    page = traitlets.Int(0).tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)

    def __init__(self, evaluation: Evaluation, store: Store):
        self._evaluation, self.task = evaluation, evaluation.task
        self._records = evaluation.records.reset_index(drop=True)
        self._places = {image: place for place, image in enumerate(self._records["image"])}
        self._questions = questions(evaluation) if self.task.thresholds else {}
        self.shown = list(self._places)
        first = next(iter(self._questions), "")
        start = self._questions[first].threshold if first else 0.5
        super().__init__(store, self.shown, finding=first, threshold=start)
        self._judge()
        self.observe(self._ask, ["finding"])
        self.observe(lambda _: self._judge(), ["threshold"])
        self.observe(self._choose, ["outcome", "order", "low", "high"])
        self.observe(lambda _: self._show(), ["page", "chosen"])

    @traitlets.validate("finding")
    def _is_finding(self, proposal: Any) -> str:
        return self._one_of(proposal.value, list(self._questions) or [""], "finding")

    @traitlets.validate("outcome")
    def _is_outcome(self, proposal: Any) -> str:
        return self._one_of(proposal.value, ["", *self._outcomes()], "outcome")

    @traitlets.validate("chosen")
    def _is_image(self, proposal: Any) -> str:
        return self._one_of(proposal.value, ["", *self._places], "image")

    @traitlets.validate("page")
    def _within(self, proposal: Any) -> int:
        return max(0, min(proposal.value, (len(self.shown) - 1) // PAGE))

    def _one_of(self, value: str, known: list[str], what: str) -> str:
        if value not in known:
            raise traitlets.TraitError(f"there is no {what} {value!r}; there is: {', '.join(filter(None, known[:30]))}")
        return value

    def _outcomes(self) -> list[str]:
        if self._questions:
            return list(_BINARY.values())
        names = self.task.classes
        pairs = [f"{truth} → {decided}" for truth in names for decided in names if truth != decided]
        return ["right", "wrong", *pairs]

    def _ask(self, _: Any) -> None:
        with self.hold_sync():
            before, self.threshold = self.threshold, self._questions[self.finding].threshold
            if self.threshold == before:
                self._judge()

    def _judge(self) -> None:
        """What is decided of each image, how sure that is, and what it comes to."""
        if self._questions:
            one = self._questions[self.finding]
            scores, self._truth = np.asarray(one.scores, float), np.asarray(one.truth).astype(int)
            self._decided = called(one, self.threshold).astype(int)
            self._confidence = np.where(self._decided == 1, scores, 1 - scores)
            self._outcome = [_BINARY[pair] for pair in zip(self._truth.tolist(), self._decided.tolist(), strict=True)]
            absent = f"no {self.finding}" if self.task.kind == "multilabel" else self.task.classes[0]
            self._said = (absent, self.finding)
        else:
            prediction = self._evaluation.prediction
            self._truth, self._decided = self._evaluation.truth, prediction.decided
            self._confidence = prediction.probabilities[np.arange(len(self._truth)), self._decided].astype(float)
            self._said = self.task.classes
            self._outcome = [
                "right" if truth == decided else f"{self._said[truth]} → {self._said[decided]}"
                for truth, decided in zip(self._truth, self._decided, strict=True)
            ]
        self._choose()

    def _choose(self, _: Any = None) -> None:
        within = (self._confidence >= self.low) & (self._confidence <= self.high)
        places = [place for place in np.flatnonzero(within) if self._passes(self._outcome[place])]
        if self.order != "listed":
            sign = -1 if self.order == "sure" else 1
            places.sort(key=lambda place: sign * self._confidence[place])
        images = self._records["image"]
        self.shown = [images[place] for place in places]
        if self.page:
            self.page = 0  # which shows the new list
        else:
            self._show()

    def _passes(self, outcome: str) -> bool:
        return self.outcome in ("", outcome) or (self.outcome == "wrong" and outcome != "right")

    def _show(self) -> None:
        found = Counter(self._outcome)
        if not self._questions:
            found["wrong"] = len(self._outcome) - found["right"]
        always = 4 if self._questions else 2
        start = self.page * PAGE
        self.set_trait(
            "state",
            {
                "title": marked(self._evaluation.title, self._evaluation.synthetic),
                "findings": list(self._questions) if self.task.kind == "multilabel" else [],
                "operating_point": self._questions[self.finding].threshold if self._questions else None,
                "outcomes": [["", "all outcomes", len(self._outcome)]]
                + [
                    [name, self._explained(name), found[name]]
                    for place, name in enumerate(self._outcomes())
                    if place < always or found[name]
                ],
                "orders": [[name, text] for name, text in _ORDERS.items()],
                "shown": len(self.shown),
                "images": len(self._outcome),
                "page": self.page,
                "pages": max(1, -(-len(self.shown) // PAGE)),
                "cards": [self._card(image) for image in self.shown[start : start + PAGE]],
                "detail": self._detail(self.chosen) if self.chosen else None,
                "notice": "",
                "error": "",
            },
        )

    def _explained(self, outcome: str) -> str:
        codes = next((codes for codes, name in _BINARY.items() if name == outcome), None)
        return outcome if codes is None else f"{outcome} ({self._said[codes[0]]}, called {self._said[codes[1]]})"

    def _card(self, image: str) -> dict:
        place = self._places[image]
        return {
            "image": image,
            "truth": self._said[self._truth[place]],
            "decided": self._said[self._decided[place]],
            "right": bool(self._truth[place] == self._decided[place]),
            "outcome": self._outcome[place],
            "confidence": float(self._confidence[place]),
        }

    def _detail(self, image: str) -> dict:
        place = self._places[image]
        truth = self._evaluation.truth[place]
        present = truth if self.task.kind == "multilabel" else np.arange(len(self.task.classes)) == truth
        probabilities = self._evaluation.prediction.probabilities[place]
        names = zip(self.task.classes, probabilities.tolist(), present.tolist(), strict=True)
        around = self.shown.index(image) if image in self.shown else None
        return self._card(image) | {
            "bars": [[name, probability, bool(true)] for name, probability, true in names],
            "facts": facts(self._records.loc[place], self.task),
            "previous": self.shown[around - 1] if around else "",
            "next": self.shown[around + 1] if around is not None and around + 1 < len(self.shown) else "",
        }

    def summary(self) -> str:
        """Images and how many were decided rightly, in one line."""
        right = int((self._truth == self._decided).sum())
        of = f" about {self.finding}" if self.task.kind == "multilabel" else ""
        return f"{right} of {len(self._truth)} images decided rightly{of}; {len(self.shown)} shown"

    def static(self) -> Figure:
        """The page of the grid at which the viewer stands: truth, decision, confidence; wrong decisions in colour."""
        cards = [self._card(image) for image in self.shown[self.page * PAGE :][:_PICTURED]]
        cards = cards or [self._card(image) for image in list(self._places)[:_PICTURED]]
        captions = [f"{card['truth']}\n→ {card['decided']}, {card['confidence']:.2f}" for card in cards]
        figure = plots.image_grid(
            [pixels_or_grey(self._store, card["image"], 160) for card in cards],
            captions,
            columns=min(6, len(cards)),
            side=1.5,
        )
        for axes, card in zip(figure.axes, cards, strict=False):
            axes.title.set_color("black" if card["right"] else plots.COLOURS[1])
        which = f"{self.outcome or 'all outcomes'}, {_ORDERS[self.order]}"
        text = f"{self._evaluation.title}: {which} ({len(self.shown)} of {len(self._places)} images)"
        return titled(figure, text, self._evaluation.synthetic)
