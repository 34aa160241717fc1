"""The options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path, typer.Option("--data", "-d", help="Folder that holds the task's folder or zip file, or that folder itself.")
]
TaskArgument = Annotated[
    str,
    typer.Argument(
        help="What is predicted: retinopathy, chest_xray, chest_xray_binary, chest_xray_or_none, digits, skin_lesion; "
        "own for images of your own, in a folder a class or with a CSV file."
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option("--positive", help="own: of two classes the positive one, such as malignant; else the last by name."),
]
LookedForOption = Annotated[str | None, typer.Option("--looked-for", hidden=True, help="The former --positive.")]
LabelColumnOption = Annotated[str | None, typer.Option("--label-column", help="own: title of the labels' column.")]
ImageColumnOption = Annotated[str | None, typer.Option("--image-column", help="own: title of the images' column.")]
PatientColumnOption = Annotated[
    str | None, typer.Option("--patient-column", help="own: title of the column that tells patients apart.")
]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Folder or zip of the images, when elsewhere.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=4294967295, help="Fixes splits, order, augmentation and weights.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler", help="A Dask cluster that does the work, such as tcp://10.0.0.1:8786 (docs/clusters.md)."
    ),
]
SizeOption = Annotated[int, typer.Option("--size", help="Side of the prepared images in pixels.")]
TestOption = Annotated[
    float | None, typer.Option("--test", help="Share of patients for testing; by default the source's own test split.")
]
SpaceOption = Annotated[
    str, typer.Option("--space", help="Space that holds the deployment: its name, or locally the path of its folder.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what a cloud would be asked and sent; needs no account.")
]
BundleArgument = Annotated[Path, typer.Argument(help="A bundle's folder or .tar.gz.")]
NameArgument = Annotated[str, typer.Argument(help="Name of the deployment.")]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="File with the service's token; else MEDIC_TOKEN, if set.")
]


class Target(StrEnum):
    """Where a bundle becomes a service."""

    local = "local"
    watsonx = "watsonx"
    azureml = "azureml"
    kserve = "kserve"


TargetOption = Annotated[Target, typer.Option("--target", help="Where: this machine, a cloud or a cluster.")]


def how_to_read(**columns: str | None) -> dict[str, object]:
    """What a person says of images of their own, as their reader takes it: nothing where nothing is said."""
    named = {what: title for what, title in columns.items() if title is not None}
    return {"columns": named} if named else {}
