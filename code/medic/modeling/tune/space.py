"""What a study may vary, and how a choice becomes a plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from medic.errors import MedicError
from medic.modeling.backbones import own_dropout, published
from medic.modeling.training.plans import Plan

if TYPE_CHECKING:
    import optuna

Settings = dict[str, float | int | str]
"""What one trial is given, by the names of ``SearchSpace``; what is not in it stays as it is in the plan."""

DROPOUT_STEP, AUGMENTATION_STEP = 0.05, 0.25
OPTIONS = {
    "learning_rate": "--learning-rate",
    "batch_size": "--batch-size",
    "dropout": "--dropout",
    "image_size": "--image-size",
    "backbone": "--backbone",
    "augmentation": "--augmentation",
}
"""How ``medic train`` calls each setting."""


@dataclass(frozen=True)
class SearchSpace:
    """What may vary, and how far. What is None stays as the plan has it.

    Attributes:
        learning_rate: lowest and highest, drawn on a logarithmic scale and rounded to two digits.
        batch_size: which ones.
        dropout: least and most, in steps of 0.05.
        image_size: sides of the network's input in pixels, which ones.
        backbone: torchvision networks; those of one family by their depth, such as ``("resnet18", "resnet34")``.
        augmentation: least and most strength, in steps of 0.25: all limits of the plan's augmentation are multiplied by
            it, so that 1 is the plan's own.
    """

    learning_rate: tuple[float, float] | None = None
    batch_size: tuple[int, ...] | None = None
    dropout: tuple[float, float] | None = None
    image_size: tuple[int, ...] | None = None
    backbone: tuple[str, ...] | None = None
    augmentation: tuple[float, float] | None = None

    @classmethod
    def around(cls, plan: Plan) -> SearchSpace:
        """A usual space with the plan in it; network and image size, which decide the time, stay as they are."""
        recipe = plan.recipe
        return cls(
            learning_rate=(recipe.learning_rate / 10, recipe.learning_rate * 10),
            batch_size=tuple(sorted({max(2, recipe.batch_size // 2), recipe.batch_size, 2 * recipe.batch_size})),
            dropout=(0.0, 0.5),
            augmentation=(0.0, 2.0) if hasattr(recipe.augmentation, "scaled") else None,
        )

    @property
    def varied(self) -> tuple[str, ...]:
        """The names of what varies."""
        return tuple(name for name in self.__dataclass_fields__ if getattr(self, name) is not None)

    def check(self, plan: Plan) -> None:
        """Refuse what cannot be varied so.

        Raises:
            MedicError: nothing varies, a range does not rise, a value is none that a plan can have, or the plan's
                augmentation has no strength.
        """
        if not self.varied:
            raise MedicError(f"there is nothing to tune; let at least one of {', '.join(OPTIONS)} vary")
        for name in ("learning_rate", "dropout", "augmentation"):
            ends = getattr(self, name)
            if ends is not None and not (len(ends) == 2 and 0 <= ends[0] < ends[1]):
                raise MedicError(f"the {name} cannot vary within {ends}; give the least and the most, the least first")
        if self.learning_rate is not None and self.learning_rate[0] <= 0:
            raise MedicError("a learning rate of 0 cannot be drawn on a logarithmic scale; begin at 1e-5 or so")
        if self.dropout is not None and self.dropout[1] >= 1:
            raise MedicError(f"a dropout of {self.dropout[1]} leaves nothing of the features; end at 0.5 or so")
        for name in ("batch_size", "image_size", "backbone"):
            choices = getattr(self, name)
            if choices is not None and (isinstance(choices, str) or len(set(choices)) < 2):
                raise MedicError(f"the {name} cannot vary over {choices!r}; give at least two, or leave it away")
        for name in ("batch_size", "image_size"):
            if any(value < 1 for value in getattr(self, name) or ()):
                raise MedicError(f"a {name} is at least 1, and {getattr(self, name)} has a smaller one")
        for name in self.backbone or ():
            published(name)
        if self.augmentation is not None and not hasattr(plan.recipe.augmentation, "scaled"):
            raise MedicError(
                f"the strength of {type(plan.recipe.augmentation).__name__} cannot vary; take a plan with the default "
                "augmentation, or leave augmentation away"
            )

    def draw(self, trial: optuna.Trial) -> Settings:
        """What the sampler proposes for a trial."""
        drawn: Settings = {}
        if self.learning_rate is not None:
            rate = trial.suggest_float("learning_rate", *self.learning_rate, log=True)
            # Two digits are more than any study can tell apart, and what a person can copy.
            drawn["learning_rate"] = float(f"{rate:.2g}")
        for name, step in (("dropout", DROPOUT_STEP), ("augmentation", AUGMENTATION_STEP)):
            if (ends := getattr(self, name)) is not None:
                drawn[name] = round(trial.suggest_float(name, *_in_steps(ends, step), step=step), 4)
        for name in ("batch_size", "image_size", "backbone"):
            if (choices := getattr(self, name)) is not None:
                drawn[name] = trial.suggest_categorical(name, list(choices))
        return {name: drawn[name] for name in self.varied}

    def own(self, plan: Plan) -> Settings | None:
        """The plan's own settings as a trial would have them; None where the space leaves one of them out."""
        recipe = plan.recipe
        values = {
            "learning_rate": recipe.learning_rate,
            "batch_size": recipe.batch_size,
            "dropout": own_dropout(plan.backbone) if plan.dropout is None else plan.dropout,
            "image_size": plan.image_size,
            "backbone": plan.backbone,
            "augmentation": 1.0,
        }
        own = {name: values[name] for name in self.varied}
        for name, value in own.items():
            there = getattr(self, name)
            inside = there[0] <= value <= there[1] if name in ("learning_rate", "dropout", "augmentation") else None
            if inside is False or (inside is None and value not in there):
                return None
        return own

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def with_settings(plan: Plan, settings: Settings) -> Plan:
    """The plan with a trial's settings instead of its own."""
    recipe = {name: settings[name] for name in ("learning_rate", "batch_size") if name in settings}
    if "augmentation" in settings:
        recipe["augmentation"] = plan.recipe.augmentation.scaled(settings["augmentation"])
    network = {name: settings[name] for name in ("dropout", "image_size", "backbone") if name in settings}
    return replace(plan, recipe=replace(plan.recipe, **recipe), **network)


def _in_steps(ends: tuple[float, float], step: float) -> tuple[float, float]:
    """The range with its upper end moved down to a whole number of steps, at least one."""
    return ends[0], ends[0] + step * max(1, int((ends[1] - ends[0]) / step + 1e-9))
