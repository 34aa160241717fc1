"""The card that travels with a model, written from its manifest (Mitchell et al., arXiv 1810.03993)."""

from __future__ import annotations

from medic.deployment.bundle.manifest import NOTICE, SYNTHETIC
from medic.referral import Referral
from medic.task import Task


def model_card(values: dict, task: Task) -> str:
    """The Markdown text of ``MODEL_CARD.md``.

    Args:
        values: what ``manifest.json`` is going to hold, but for the files.
        task: what is predicted.
    """
    data, model, created = values["data"], values["model"], values["created"]
    size = values["preprocessing"]["size"]
    warning = f"**{NOTICE}**" + (f"\n\n**SYNTHETIC. {SYNTHETIC}**" if data["synthetic"] else "")
    classes = ", ".join(f"{code} {name}" for code, name in enumerate(task.classes))
    grade = " and a continuous grade" if task.kind == "ordinal" else ""
    return f"""# {values["name"]}: model card

{warning}

## Model

{model["backbone"]} with the {model["objective"]["name"]} objective, input {model["image_size"]} px,
{values["precision"]}, ONNX. Made {created["time"]} with medic {created["medic"]}.

## Intended use

One image in, one answer out: {task.name} ({task.kind}; {classes}).
Meant for learning how such a model is built, judged and served, and for research. Not meant for, and not tested for,
screening, diagnosis or any decision about a person.

## Data

{data["description"]}{" The images are synthetic." if data["synthetic"] else ""}

## Figures

{_figures(values["evaluation"], task)}

## Limits

- Figures hold for images like those it was judged on: other cameras, other populations and other image quality can
  change them.{_distance_limit(model)}
- {_probability_limit(model)}
- An image without the expected subject gets an answer too.
{_heatmap_limit(values)}{_precision_limit(values)}
## How to call it

    python score.py image.jpeg            # needs: pip install onnxruntime numpy opencv-python-headless pillow
                                          # simplejpeg, and for DICOM files: pydicom
    medic serve THIS_FOLDER               # then:
    curl --data-binary @image.jpeg -H "Content-Type: image/jpeg" http://127.0.0.1:8080/predict

Bytes become pixels as `manifest.json` says ({values["preprocessing"]["crop"]} crop, {size} x {size} RGB, uint8);
the graph `model.onnx` does the rest and gives probabilities{grade}.
`golden/` holds images with the answers expected of them.
"""


def _figures(evaluation: dict | None, task: Task) -> str:
    if evaluation is None:
        return (
            "None were given: this model was packaged without an evaluation, so nothing is known of how well it works."
        )
    matrix = None if task.kind == "multilabel" else evaluation.get("confusion_matrix")
    rest = {name: value for name, value in evaluation.items() if name not in ("confusion_matrix", "classes")}
    lines = _lines(rest)
    if matrix is not None:
        rows = [
            {"truth": name, **dict(zip(task.classes, row, strict=True))}
            for name, row in zip(task.classes, matrix, strict=True)
        ]
        lines += _lines(rows, "confusion matrix, images (decided class by column)")
    return "\n".join(lines)


def _lines(value: object, title: str = "") -> list[str]:
    """Any JSON value as Markdown: a list of like mappings is a table, the rest is a list of points."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        names = list(dict.fromkeys(name for row in value for name in row))
        head = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
        rows = ["| " + " | ".join(_text(row.get(name, "")) for name in names) + " |" for row in value]
        return [*([f"**{title}**", ""] if title else []), *head, *rows, ""]
    if isinstance(value, dict):
        if value and all(isinstance(entry, dict) for entry in value.values()):
            return _lines([{"": name, **entry} for name, entry in value.items()], title)
        points = [f"- {name}: {_text(entry)}" for name, entry in value.items() if not isinstance(entry, dict | list)]
        nested = [
            line for name, entry in value.items() if isinstance(entry, dict | list) for line in _lines(entry, name)
        ]
        return [*([f"**{title}**", ""] if title else []), *points, "", *nested]
    return [f"- {title}: {_text(value)}" if title else _text(value)]


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _distance_limit(model: dict) -> str:
    if (model.get("referral") or {}).get("distance") is None:
        return " The model does not say when an image is outside what it knows."
    return " An image that lies far from those of the training is left to a person (`unlike`); near ones can be, too."


def _heatmap_limit(values: dict) -> str:
    if values["heatmap"] is None:
        return ""
    return (
        "- The heatmap (class activation map) is relative evidence within one image: it cannot be compared between\n"
        "  images, and it is no segmentation.\n"
    )


def _precision_limit(values: dict) -> str:
    if values["precision"] == "fp32":
        return ""
    return (
        "- The figures are those of the fp32 checkpoint; this graph is its int8 copy. Single probabilities differ,\n"
        "  and other processors may round a little differently. `golden/expected.json` has both answers.\n"
    )


def _probability_limit(model: dict) -> str:
    objective, referral = model["objective"], model.get("referral")
    said = "Probabilities are not calibrated unless the figures above say so."
    if referral is not None:
        rule = Referral.from_dict(referral)
        said = f"Probabilities are {rule}, which holds for images like those. Sets of possible\n  classes hold "
        said += f"the truth in about {rule.coverage:.0%} of such images; answers are left to a person by the same rule."
    elif objective.get("prevalence") is not None or objective.get("class_weights") is not None:
        said += " The loss was weighted against\n  imbalance, so they are too high for what is rare."
    elif objective["name"] == "regression":
        said += " They are a normal distribution around\n  the grade that the network gives."
    if model.get("thresholds") is not None:
        said += " The operating point (`thresholds` in `manifest.json`) was chosen\n  on the validation split."
    return said
