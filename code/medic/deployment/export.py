"""A trained model as one ONNX file: resize, normalise, network and decoding in a single graph."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medic.deployment.bundle.predictor import (
    ACTIVATION,
    INPUT,
    PRECISION,
    REFERRAL,
    THRESHOLDS,
    open_session,
    run_with_activation,
)
from medic.errors import MedicError
from medic.files import replacing
from medic.task import Prediction

if TYPE_CHECKING:
    import onnx

    from medic.modeling.classifier import Classifier

OPSET = 18
"""The first with an antialiased Resize, and the last that the clouds' runtimes (onnxruntime 1.16) know well."""
IR_VERSION = 9
"""What onnxruntime 1.16 and 1.17 still read; the exporter writes a newer one."""
TOLERANCE = 1e-4
"""Largest difference to torch, in probability, in grades or in shares of a map's largest value, with which a graph is
written."""


@dataclass(frozen=True)
class Exported:
    """An ONNX file, and how closely it follows the model it was made from.

    Attributes:
        path: the file.
        size: bytes.
        parity: largest difference to torch over all outputs, by the number of images in the batch: absolute, but for
            the class activation map, which has no fixed scale, relative to its largest value where that is above 1.
    """

    path: Path
    size: int
    parity: dict[int, float]

    def __str__(self) -> str:
        parity = ", ".join(f"batch {count}: {difference:.1e}" for count, difference in self.parity.items())
        return f"{self.path}: {self.size / 1e6:.1f} MB, largest difference to torch {parity}"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>batch {n}</td><td>{value:.1e}</td></tr>" for n, value in self.parity.items())
        return (
            f"<b>{self.path}</b>, {self.size / 1e6:.1f} MB<table><tr><th>parity</th>"
            f"<th>largest difference to torch</th></tr>{rows}</table>"
        )


def export(model: Classifier, path: str | Path, pixels: np.ndarray | None = None) -> Exported:
    """Write a model as ONNX (opset 18, IR 9, weights inside, any batch size), once it agrees with torch.

    The graph takes ``images`` uint8 (N, size, size, 3) RGB with ``size`` of the model's preprocessing, and gives
    ``probabilities`` float32 (N, C), for ordinal tasks ``grade`` float32 (N,), and where the model measures it
    ``distance`` float32 (N,) to the training images. The calibration is inside, so that what leaves the graph is
    calibrated; operating point and referral rule stand in its metadata. Where the network ends in an average over all
    places and one linear layer, as most but not all do, ``class_activation`` float32 (N, K, h, w) comes last: what each
    place adds to each of the K raw outputs (see ``medic.deployment.class_activation``).

    Args:
        model: the classifier; it is left as it is.
        path: the file to write; ``.onnx`` by custom.
        pixels: prepared images, uint8 (N, size, size, 3), on which the graph is compared with torch at batch 1 and at
            batch 4; random ones when None. Exporters have fixed the batch size silently before: hence both.

    Returns:
        Where it is, how large, and how closely it agrees.

    Raises:
        MedicError: the exporter failed, the graph differs from torch by more than ``TOLERANCE`` (nothing is written
            then), or ``pixels`` do not fit the model.
    """
    path = Path(path)
    examples = _examples(model, pixels)
    reference = copy.deepcopy(model).cpu().float().eval()
    graph = _graph(reference)
    with replacing(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        parity = {count: _difference(reference, temporary, examples[:count]) for count in (1, len(examples))}
        worst = max(parity.values())
        if not worst <= TOLERANCE:
            raise MedicError(
                f"the exported graph of {model.backbone_name} differs from torch by {worst:.1e} (allowed: "
                f"{TOLERANCE:.0e}), so {path} was not written; try another backbone or another version of torch"
            )
    return Exported(path, path.stat().st_size, parity)


def largest_difference(one: Prediction, other: Prediction) -> float:
    """The largest difference of two predictions, over probabilities, grades and distances; NaN if any value is.

    It is absolute, but for distances, which have no fixed scale, relative to the larger where that is above 1.
    """
    difference = np.abs(one.probabilities - other.probabilities).max()
    if one.grade is not None and other.grade is not None:
        difference = np.maximum(difference, np.abs(one.grade - other.grade).max())
    if one.distance is not None and other.distance is not None:
        scale = np.maximum(1, np.maximum(one.distance, other.distance))
        difference = np.maximum(difference, (np.abs(one.distance - other.distance) / scale).max())
    return float(difference)


def finish(graph: onnx.ModelProto, said: Mapping[str, str]) -> onnx.ModelProto:
    """Make a graph one that old runtimes read, write what is said of it into its metadata, and check it.

    Opset imports that no node uses are dropped (old runtimes refuse unknown ones), and so are the exporter's notes on
    each node, which hold paths of the machine.
    """
    import onnx

    graph.ir_version = IR_VERSION
    used = {node.domain for node in graph.graph.node} | {node.domain for f in graph.functions for node in f.node}
    opsets = [entry for entry in graph.opset_import if entry.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(opsets)
    inner = graph.graph
    for part in (*inner.node, *inner.input, *inner.output, *inner.value_info, *inner.initializer, inner):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.helper.set_model_props(graph, dict(said))
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _examples(model: Classifier, pixels: np.ndarray | None) -> np.ndarray:
    size = model.preprocessing.size
    if pixels is None:
        return np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3) or not len(pixels):
        raise MedicError(
            f"the check images must be uint8 (N, {size}, {size}, 3), got {pixels.dtype} {pixels.shape}; "
            "prepare them with the model's own preprocessing"
        )
    # Fewer than four are repeated: the batch is what is under test.
    return np.resize(pixels, (4, size, size, 3)) if len(pixels) < 4 else pixels[:4]


def _graph(model: Classifier) -> onnx.ModelProto:
    import torch

    from medic.deployment.class_activation import WithActivation, has_activation

    size = model.preprocessing.size
    names, said = model.output_names, {PRECISION: "fp32"}
    if model.thresholds is not None:
        said[THRESHOLDS] = json.dumps(list(model.thresholds))
    if model.referral is not None:
        said[REFERRAL] = json.dumps(model.referral.to_dict())
    exported: torch.nn.Module = model
    if has_activation(model):
        names, exported = [*names, ACTIVATION], WithActivation(model)
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    try:
        with quiet():
            program = torch.onnx.export(
                exported,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                verbose=False,
            )
            return finish(program.model_proto, said)
    except Exception as error:  # the exporter raises from many layers; none of it may reach the reader raw
        raise MedicError(
            f"torch could not export {model.backbone_name} to ONNX ({str(error).splitlines()[0]}); "
            "try another backbone or another version of torch"
        ) from error


def _difference(model: Classifier, path: Path, pixels: np.ndarray) -> float:
    import torch

    from medic.deployment.class_activation import WithActivation

    actual, activation = run_with_activation(open_session(path), model.task, pixels)
    difference = largest_difference(model.predict_pixels(pixels), actual)
    if activation is None:
        return difference
    with torch.inference_mode():
        expected = WithActivation(model)(torch.from_numpy(pixels))[-1].numpy()
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.maximum(difference, np.abs(activation - expected).max() / scale))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep an exporter's progress lines, warnings and log messages from the reader; errors are raised anyway."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
