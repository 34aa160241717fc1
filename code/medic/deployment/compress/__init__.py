"""Smaller and faster: static int8, kept only when its decisions pass a gate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medic.deployment.bundle.predictor import (
    ACTIVATION,
    BATCH,
    DISTANCE,
    INPUT,
    PRECISION,
    REFERRAL,
    open_session,
    referral_of,
)
from medic.deployment.compress.acceptance import AcceptanceCriteria, Examples, GraphComparison, compare
from medic.deployment.export import finish, quiet
from medic.errors import MedicError
from medic.files import write_bytes
from medic.referral import Referral
from medic.task import Task

if TYPE_CHECKING:
    import onnx
    import onnxruntime

QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "GlobalAveragePool")
"""Operations that run in int8. Resize, normalise and decode have none of them and stay float.

Relu and Clip (ReLU6) cost nothing there: unsigned integers end at their zero point, so that they dissolve into the
layer before. Left out, every one of them would turn its layer's output to float and back.
"""


@dataclass(frozen=True, eq=False)
class Compressed:
    """What compression came to.

    Attributes:
        path: the graph to go on with: the int8 one if it passed its gate, otherwise the fp32 one.
        precision: ``int8`` or ``fp32``, of that graph.
        comparison: the figures the gate judged by.
    """

    path: Path
    precision: str
    comparison: GraphComparison

    def __str__(self) -> str:
        return f"{self.comparison}\n{self._sentence()}"

    def _repr_html_(self) -> str:
        return f"{self.comparison._repr_html_()}<p><b>{self._sentence()}</b></p>"

    def _sentence(self) -> str:
        if self.precision == "int8":
            return "int8 passed its gate and is kept"
        return "int8 did not pass its gate and is not kept; fp32 stays"


def compress(
    fp32: str | Path,
    int8: str | Path,
    calibration: Iterable[np.ndarray],
    examples: Examples,
    task: Task,
    gate: AcceptanceCriteria | None = None,
) -> Compressed:
    """Quantise a graph, and keep the result only if its decisions pass the gate.

    Args:
        fp32: the exported graph.
        int8: the file to write. When the gate fails it is not written, and an older one there is removed.
        calibration: batches of prepared training images, uint8 (N, size, size, 3); some hundred images are enough.
        examples: labelled images to judge by, which the calibration has not seen.
        task: what is predicted.
        gate: the rule; the default one when None.

    Raises:
        MedicError: as ``quantize`` and ``compare``.
    """
    fp32, int8 = Path(fp32), Path(int8)
    int8.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        candidate = quantize(fp32, Path(folder) / "int8.onnx", calibration)
        comparison = compare(fp32, candidate, examples, task, gate)
        if not comparison.passed:
            return Compressed(fp32, "fp32", comparison)
        write_bytes(int8, candidate.read_bytes())
    return Compressed(int8, "int8", comparison)


def quantize(fp32: str | Path, int8: str | Path, calibration: Iterable[np.ndarray]) -> Path:
    """Write a static int8 copy of a graph: QDQ, a weight scale a channel, activation ranges by MinMax.

    The last layer and what follows it stay float: they are small, and their rounding would reach the answer unfiltered.
    So does what makes the class activation map, and the distance to the training images, of the last features. Jacob et
    al., arXiv 1712.05877, describe the arithmetic.

    Args:
        fp32: the exported graph.
        int8: the file to write.
        calibration: batches of prepared training images, uint8 (N, size, size, 3), from which the ranges are read.

    Returns:
        ``int8``, written.

    Raises:
        MedicError: no calibration image, images of the wrong shape, or the graph cannot be quantised.
    """
    fp32, int8 = Path(fp32), Path(int8)
    session = open_session(fp32)
    batches = _batches(calibration, session.get_inputs()[0].shape[1:])
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            said = session.get_modelmeta().custom_metadata_map | {PRECISION: "int8"}
            content = _quantized(fp32, batches, Path(folder), said)
    except Exception as error:  # the quantiser raises from many layers; none of it may reach the reader raw
        raise MedicError(
            f"{fp32} could not be quantised ({str(error) or type(error).__name__}); go on with the fp32 graph"
        ) from error
    write_bytes(int8, content)
    return int8


def _quantized(fp32: Path, batches: list[np.ndarray], folder: Path, said: dict[str, str]) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
    # Symbolic shape inference stops at the exporter's graphs, and the plain one is enough for them.
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    graph = _normalise_in_one(onnx.load(prepared))
    onnx.save(graph, prepared)
    quantize_static(
        str(prepared),
        str(quantized),
        _Calibration(batches),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTIZED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # Processors without VNNI add two products of 8 bits in 16, which saturate. Weights of 7 bits cannot.
        reduce_range=True,
        nodes_to_exclude=_kept_float(graph),
        calibrate_method=CalibrationMethod.MinMax,
    )
    rule = _moved_limit(open_session(fp32), open_session(quantized), batches)
    return finish(
        onnx.load(quantized), said | ({} if rule is None else {REFERRAL: json.dumps(rule.to_dict())})
    ).SerializeToString()


def _moved_limit(
    fp32: onnxruntime.InferenceSession, int8: onnxruntime.InferenceSession, batches: list[np.ndarray]
) -> Referral | None:
    """Return the referral rule with the limit of the distance moved by what rounding adds to it; None without one.

    Rounding moves the features of every image, and so adds about the same to every squared distance.
    """
    rule = referral_of(fp32)
    if rule is None or rule.distance is None:
        return None
    before, after = (
        np.concatenate([session.run([DISTANCE], {INPUT: batch})[0] for batch in batches]) for session in (fp32, int8)
    )
    return replace(rule, distance=float(np.sqrt(max(0.0, rule.distance**2 + np.median(after**2 - before**2)))))


def _kept_float(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay float: the last layer, all that follows it, and what only map or distance need."""
    nodes = graph.graph.node
    outputs = [value.name for value in graph.graph.output]
    answering = _needed(graph, [name for name in outputs if name not in (ACTIVATION, DISTANCE)])
    kept = _needed(graph, outputs) - answering
    layers = [node for node in nodes if node.op_type in ("Gemm", "MatMul") and node.name in answering]
    reached = {name for layer in layers[-1:] for name in layer.output}
    kept |= {layer.name for layer in layers[-1:]}
    for node in nodes:  # in the order of computation
        if not reached.isdisjoint(node.input):
            kept.add(node.name)
            reached.update(node.output)
    return sorted(kept)


def _needed(graph: onnx.ModelProto, outputs: list[str]) -> set[str]:
    """Names of the nodes that some outputs are computed from."""
    names, values = set(), set(outputs)
    for node in reversed(graph.graph.node):
        if not values.isdisjoint(node.output):
            names.add(node.name)
            values.update(node.input)
    return names


def _normalise_in_one(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Write "subtract the mean, divide by the deviation" as the one operation that does both, a BatchNormalization.

    Integer convolutions want the channels last, and onnxruntime carries that order up to the image, where the two
    operations would go through three numbers at a time, which takes long. It carries no order through a
    BatchNormalization.
    """
    import onnx
    from onnx.numpy_helper import from_array, to_array

    inner = graph.graph
    constants = {tensor.name: tensor for tensor in inner.initializer}
    for place, subtract in enumerate(inner.node):
        after = [node for node in inner.node if subtract.output[0] in node.input]
        if subtract.op_type != "Sub" or [node.op_type for node in after] != ["Div"]:
            continue
        (divide,) = after
        if subtract.input[1] not in constants or divide.input[1] not in constants:
            continue
        mean, deviation = (to_array(constants[node.input[1]]) for node in (subtract, divide))
        if mean.shape != deviation.shape or mean.shape != (1, mean.size, 1, 1):
            continue
        values = {"scale": np.ones(mean.size), "shift": np.zeros(mean.size), "mean": mean, "variance": deviation**2.0}
        inner.initializer.extend(
            from_array(value.astype(np.float32).ravel(), f"normalise_{name}") for name, value in values.items()
        )
        inputs = [subtract.input[0], *(f"normalise_{name}" for name in values)]
        normalise = onnx.helper.make_node(
            "BatchNormalization", inputs, [divide.output[0]], name="normalise", epsilon=0.0
        )
        inner.node.insert(place, normalise)
        inner.node.remove(subtract)
        inner.node.remove(divide)
        used = {name for node in inner.node for name in node.input}
        for name in {subtract.input[1], divide.input[1]} - used:
            inner.initializer.remove(constants[name])
        break
    return graph


class _Calibration:
    """Batches in the form that onnxruntime's calibrator asks for."""

    def __init__(self, batches: list[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _batches(calibration: Iterable[np.ndarray], shape: list[int]) -> list[np.ndarray]:
    batches = []
    for images in calibration:
        if images.dtype != np.uint8 or list(images.shape[1:]) != shape:
            raise MedicError(
                f"calibration images must be batches uint8 (N, {', '.join(map(str, shape))}), "
                f"got {images.dtype} {images.shape}; prepare them with the model's own preprocessing"
            )
        batches += [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    if not batches:
        raise MedicError("there is no calibration image; give some from the training split")
    return batches
