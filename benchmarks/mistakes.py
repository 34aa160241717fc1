"""What six well-known mistakes cost on the photographs at hand, with the networks that ``recipes.py`` has trained.

The same functions as in the notebook 04_compare_backbones_and_objectives, which commits them on the synthetic sample.
The networks are those of the first seed: ours where a mistake is made in scoring, the published one, which is a
regression, where outputs are rounded. All figures are of the validation split, or of all patients but the test split's.
"""

from __future__ import annotations

import argparse

import recipes
from measure import arguments, figure, origin, run, show, write

from medic.errors import MedicError
from medic.modeling import mistakes
from medic.modeling.mistakes import scoring as scoring_mistakes
from medic.modeling.training.run import Run


def trained(options: argparse.Namespace, method: str) -> Run:
    folder = recipes.run_folder(options, method, 0, 0)
    if not (folder / "cpu.json").is_file():
        raise MedicError(f"the network {folder.name} has not been trained; run benchmarks/recipes.py first")
    return Run.load(folder)


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    options.choices = False
    ours, published = trained(options, "medic"), trained(options, "published")
    listed = ours.records[ours.records["split"] != "test"]
    committed = [
        mistakes.header_assumed(listed, ours.task),
        mistakes.channels_cropped_apart(ours, "validation"),
        mistakes.eyes_on_both_sides(ours.prepared, ours.task),
        scoring_mistakes.rounded_not_clipped(published, "validation"),
        scoring_mistakes.weights_never_loaded(ours, "validation"),
        scoring_mistakes.majority_praised(ours.records, ours.task, "validation"),
    ]
    table = []
    for mistake in committed:
        print(f"{mistake.name}: {mistake.sentence}")
        method = f"{mistake.name} ({mistake.measured})"
        for metric in ("right", "wrong", "cost"):
            table.append(figure("mistakes", method, metric, getattr(mistake, metric)))
    show(table, origin(options.data))
    write(table, "mistakes", options)


if __name__ == "__main__":
    run(main)
