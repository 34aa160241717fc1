"""Click through what a model decided: by outcome, by confidence, image by image."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from medic.data.stores import Store
from medic.widgets.pictured import ImagesWidget, facts, front_end

if TYPE_CHECKING:
    from medic.modeling.evaluate import Evaluation

PAGE = 18  # images of the grid
OUTCOMES = {(1, 0): "false negative", (0, 1): "false positive", (1, 1): "true positive", (0, 0): "true negative"}
ORDERS = ("least sure first", "most sure first", "as listed")


class ResultsViewer(ImagesWidget):
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
        outcome: ``right`` or ``wrong``; where a threshold decides also ``true positive``, ``false positive``, ``true
            negative`` or ``false negative``, otherwise such as ``Mild → Severe``, truth first. All when empty.
        order: ``least sure first``, ``most sure first`` or ``as listed``.
        position: place of the grid's first image among those that pass, from 0.
        chosen: the image that is shown large; none when empty.
        shown: names of the images that pass, in their order.
    """

    _esm, _css = front_end("results_viewer", "js"), front_end("results_viewer", "css")

    finding = traitlets.Unicode("").tag(sync=True)
    threshold = traitlets.Float(0.5, min=0.0, max=1.0).tag(sync=True)
    outcome = traitlets.Unicode("").tag(sync=True)
    order = traitlets.Enum(ORDERS, ORDERS[0]).tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)

    def __init__(self, evaluation: "Evaluation", store: Store):
        self._evaluation, self.task = evaluation, evaluation.task
        self._records = evaluation.records.set_index("image", drop=False)
        self._questions, self._outcomes = evaluation.questions if self.task.thresholds else {}, OUTCOMES
        if not self._questions:
            names = self.task.classes
            pairs = np.ndindex(len(names), len(names))
            self._outcomes = {(t, d): "right" if t == d else f"{names[t]} → {names[d]}" for t, d in pairs}
        outcomes = dict.fromkeys(["", "right", "wrong", *self._outcomes.values()])
        images = list(self._records["image"])
        self._choices = {
            "finding": self._questions or [""],
            "outcome": outcomes,
            "chosen": dict.fromkeys(["", *images]),
        }
        finding = next(iter(self._questions), "")
        super().__init__(evaluation.title, evaluation.synthetic, store, images, finding=finding)
        self._judge()
        self.observe(self._judge, ["finding", "threshold"])
        self.observe(self._choose, ["outcome", "order"])
        self.observe(lambda _: self._draw(), ["chosen"])

    def _judge(self, change: Any = None) -> None:
        """Work out what is decided of each image, how sure that is, and what it comes to."""
        if self._questions and not (change and change.name == "threshold"):
            self.threshold = self._questions[self.finding][2]
        truth, decided = self._evaluation.truth, self._evaluation.prediction.decided
        shares, said = self._evaluation.prediction.probabilities, self.task.classes
        if self._questions:
            truth, scores, _ = self._questions[self.finding]
            decided = (scores >= np.float32(self.threshold)).astype(int)
            shares = np.stack([1 - scores, scores], axis=1)
            said = (f"no {self.finding}" if self.task.kind == "multilabel" else said[0], self.finding)
        self._explained = {name: f"{name} ({said[t]}, called {said[d]})" for (t, d), name in OUTCOMES.items()}
        table = {
            "image": self._records["image"],
            "truth": [said[code] for code in truth],
            "decided": [said[code] for code in decided],
            "amiss": truth != decided,
            "outcome": [self._outcomes[pair] for pair in zip(truth.tolist(), decided.tolist(), strict=True)],
            "confidence": shares[range(len(truth)), decided].astype(float),
        }
        self._table = pd.DataFrame(table, self._records.index)
        self._choose()

    def _passing(self, outcome: str) -> pd.DataFrame:
        amiss, named = self._table["amiss"], self._table["outcome"] == outcome
        return self._table[{"": amiss | ~amiss, "right": ~amiss, "wrong": amiss}.get(outcome, named)]

    def _choose(self, _: Any = None) -> None:
        passing = self._passing(self.outcome)
        if self.order != "as listed":
            passing = passing.sort_values("confidence", ascending=self.order == ORDERS[0], kind="stable")
        self._list(list(passing["image"]))

    def _draw(self) -> None:
        counts = {name: len(self._passing(name)) for name in self._choices["outcome"]}
        offered = [name for name, count in counts.items() if count or name == self.outcome]
        self.show(
            findings=list(self._questions) if self.task.kind == "multilabel" else [],
            operating_point=self._questions[self.finding][2] if self._questions else None,
            outcomes=[[name, self._explained.get(name, name) or "all outcomes", counts[name]] for name in offered],
            orders=ORDERS,
            shown=len(self.shown),
            page=PAGE,
            cards=self._cards(self.shown[self.position :][:PAGE]),
            detail=self._detail(self.chosen) if self.chosen else None,
        )

    def _cards(self, images: list[str]) -> list[dict]:
        return self._table.loc[images].to_dict("records")

    def _detail(self, image: str) -> dict:
        place = self._records.index.get_loc(image)
        truth, shares = self._evaluation.truth[place], self._evaluation.prediction.probabilities[place].tolist()
        present = truth if self.task.kind == "multilabel" else np.arange(len(shares)) == truth
        beside = ["", *self.shown, ""]
        around = beside.index(image) if image in beside else 0
        return self._cards([image])[0] | {
            "bars": list(zip(self.task.classes, shares, present.astype(bool).tolist(), strict=True)),
            "facts": facts(self._records.loc[image], self.task),
            "previous": beside[max(around - 1, 0)],
            "next": beside[around + 1] if around else "",
        }

    def __repr__(self) -> str:
        of = f" about {self.finding}" if self.task.kind == "multilabel" else ""
        return f"{(~self._table['amiss']).sum()} of {len(self._table)} images decided rightly{of}"

    def static(self) -> Figure:
        """Return the page at which the viewer stands (else the first): truth, decision, confidence of each image."""
        cards = self._cards((self.shown[self.position :] or list(self._table.index))[:12])
        captions = [f"{card['truth']}\n→ {card['decided']}, {card['confidence']:.2f}" for card in cards]
        text = f"{self.outcome or 'all outcomes'}, {self.order} ({len(self.shown)} of {len(self._table)} images)"
        return self._grid(cards, captions, 6, text)
