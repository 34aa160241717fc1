"""The options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

DataOption = Annotated[
    Path, Option("--data", "-d", help="Folder that holds the task's folder or zip file, or that folder itself.")
]
PreparedOption = Annotated[Path, Option("--data", "--prepared", "-d", help="Prepared set (medic prepare, medic data).")]
TaskArgument = Annotated[
    str,
    Argument(
        help="What is predicted: retinopathy, chest_xray, chest_xray_binary, chest_xray_or_none, digits, skin_lesion; "
        "own for images of your own, in a folder a class or with a CSV file."
    ),
]
PositiveOption = Annotated[
    str | None,
    Option("--positive", "--looked-for", help="own: of two classes the positive one; else the last by name."),
]
LabelColumnOption = Annotated[str | None, Option("--label-column", help="own: title of the labels' column.")]
ImageColumnOption = Annotated[str | None, Option("--image-column", help="own: title of the images' column.")]
PatientColumnOption = Annotated[
    str | None, Option("--patient-column", help="own: title of the column that tells patients apart.")
]
ImagesOption = Annotated[Path | None, Option("--images", help="Folder or zip of the images, when elsewhere.")]
SeedOption = Annotated[
    int, Option("--seed", min=0, max=4294967295, help="Fixes splits, order, augmentation and weights.")
]
SchedulerOption = Annotated[
    str | None,
    Option("--scheduler", help="A Dask cluster that does the work, such as tcp://10.0.0.1:8786 (docs/clusters.md)."),
]
SizeOption = Annotated[int, Option("--size", help="Side of the prepared images in pixels.")]
RunArgument = Annotated[Path, Argument(help="Folder of a run.")]
NameOption = Annotated[str, Option("--name", "-n", help="Name of this one, a folder in that of all.")]
RecipeOption = Annotated[
    str | None, Option("--recipe", help="medic (the usual one), published, chexnet or binary; see docs.")
]
EpochsOption = Annotated[int | None, Option("--epochs", "-e", help="Passes over the training images.")]
WeightsOption = Annotated[
    str | None, Option("--weights", help="imagenet, none (random) or a model's folder; else the recipe's own.")
]
SpaceOption = Annotated[
    str, Option("--space", help="Space that holds the deployment: its name, or locally the path of its folder.")
]
DryRunOption = Annotated[
    bool, Option("--dry-run", help="Print what a cloud would be asked and sent; needs no account.")
]
BundleArgument = Annotated[Path, Argument(help="A bundle's folder or .tar.gz.")]
NameArgument = Annotated[str, Argument(help="Name of the deployment.")]
TokenFileOption = Annotated[
    Path | None, Option("--token-file", help="File with the service's token; else MEDIC_TOKEN, if set.")
]
Target = Literal["local", "watsonx", "azureml", "kserve"]
TargetOption = Annotated[Target, Option("--target", help="Where: this machine, a cloud or a cluster.")]


def given(**values: object) -> dict[str, object]:
    """Return what a person has said: the options that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def how_to_read(label: str | None, image: str | None, patient: str | None) -> dict[str, object]:
    """Return what a person says of images of their own, as their reader takes it: nothing where nothing is said."""
    columns = given(label=label, image=image, patient=patient)
    return {"columns": columns} if columns else {}
