"""Smaller and faster: static int8, kept only when its decisions pass a gate."""

import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pandas as pd
from onnx.numpy_helper import from_array, to_array
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from sklearn.metrics import recall_score

from medic.data.parallel import each
from medic.deployment.bundle import predictor as graphs
from medic.deployment.bundle.predictor import open_session, outputs_of, referral_of, run
from medic.deployment.export import finish, quiet
from medic.errors import MedicError
from medic.files import write_bytes
from medic.modeling.metrics import interval, metrics_for, resampled, score
from medic.task import Prediction, Task

QUANTIZED = ("Conv", "Add", "Relu", "Clip", "MaxPool", "GlobalAveragePool")
"""Operations that run in int8. Relu and Clip (ReLU6) dissolve into the layer before, because unsigned integers end at
their zero point; left out, every one of them would turn its layer's output to float and back."""
FLOAT_SHARE = 0.01
"""Of the weights of a network with depthwise convolutions, in those that stay float at its start. Of its decisions
int8 kept 84 % when none stayed so, and rounding there did nearly all of the harm."""
FEW = 20
"""Images of a class below which its sensitivity is shown but not judged: one image would move it by over 0.05."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled images to judge by.

    Attributes:
        images: prepared pixels, uint8 (N, size, size, 3) RGB.
        labels: class codes, int (N,); for multilabel tasks int (N, C), 0 or 1.
        patients: whose image it is (N,).
        drawn: how many of them a program drew, where the others are photographs.
    """

    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    drawn: int = 0


@dataclass(frozen=True)
class AcceptanceCriteria:
    """When a compressed model may stand in for the original: all of it must hold, on images that it has not seen.

    The metric is quadratic weighted kappa for ordinal tasks, the (mean) area under the ROC curve where the task asks
    whether something is present, and accuracy for others. Its difference (compressed minus original) gets a 95 %
    interval from a paired bootstrap, over the same resampled patients. With few images that interval is wide, and a
    model whose decisions changed fails.

    Attributes:
        agreement: smallest share of the same decisions, 0..1; there is one an image, for multilabel tasks one a class.
        loss: how far below zero the interval of the metric's difference may reach.
        sensitivity: how much sensitivity any class with ``FEW`` images or more may lose.
    """

    agreement: float = 0.98
    loss: float = 0.03
    sensitivity: float = 0.10

    def __str__(self) -> str:
        return (
            f"gate: at least {self.agreement:.0%} of the decisions stay the same; the 95 % interval of the metric's "
            f"difference stays above {-self.loss:g}; no class with {FEW} images or more loses over "
            f"{self.sensitivity:g} of its sensitivity"
        )


@dataclass(frozen=True, eq=False)
class Compressed:
    """What compression came to.

    Attributes:
        path: the graph to go on with: the int8 one if it passed its gate, otherwise the fp32 one.
        images: how many images the figures rest on.
        drawn: how many of these were drawn.
        table: size, speed, agreement and metric of both; ``low`` and ``high`` bound the metric's difference.
        sensitivities: share of each class's images that each of them finds.
        gate: the rule.
        reasons: why the gate failed, one sentence each; empty when it passed.
    """

    path: Path
    images: int
    drawn: int
    table: pd.DataFrame
    sensitivities: pd.DataFrame
    gate: AcceptanceCriteria
    reasons: tuple[str, ...]

    @property
    def precision(self) -> str:
        """``int8`` or ``fp32``, of the graph to go on with."""
        return "fp32" if self.reasons else "int8"

    def __str__(self) -> str:
        tables = [one.to_string(float_format="%.3f", na_rep="") for one in (self.table, self.sensitivities)]
        outcome = f"failed: {'; '.join(self.reasons)}; fp32 stays" if self.reasons else "passed; int8 is kept"
        drawn = f", {self.drawn} of them drawn (synthetic)," if self.drawn else ""
        return "\n\n".join([*tables, f"{self.gate}. On {self.images} images{drawn} it {outcome}"])


def compress(
    fp32: str | Path,
    int8: str | Path,
    calibration: np.ndarray,
    examples: Examples,
    task: Task,
    gate: AcceptanceCriteria | None = None,
) -> Compressed:
    """Quantise a graph, and keep the result only if its decisions pass the gate.

    Milliseconds in its table are the median of interleaved calls at batch 1 on one thread, as the service runs it, so
    that a busy machine slows both alike.

    Args:
        fp32: the exported graph.
        int8: the file to write. When the gate fails it is not written, and an older one there is removed.
        calibration: as ``quantize`` takes them.
        examples: labelled images to judge by, which the calibration has not seen; a thousand or more tell.
        task: what is predicted.
        gate: the rule; the default one when None.

    Raises:
        MedicError: as ``quantize``.
    """
    gate, fp32, int8 = gate or AcceptanceCriteria(), Path(fp32), Path(int8)
    name = list(metrics_for(task))[-1] if task.kind == "ordinal" or task.thresholds else "accuracy"
    truth, rows, found, codes = examples.labels, {}, {}, range(len(task.classes))
    int8.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"fp32": fp32, "int8": quantize(fp32, Path(folder) / "int8.onnx", calibration)}
        sessions = {key: open_session(path, threads=1) for key, path in paths.items()}
        said = {key: _judge(session, task, examples.images) for key, session in sessions.items()}
        seconds = {key: [] for key in paths}
        for key in [*paths] * 15:
            outputs_of(sessions[key], examples.images[:1], graphs.OUTPUTS)  # the caches belong to this graph again
            start = time.perf_counter()
            outputs_of(sessions[key], examples.images[:1], graphs.OUTPUTS)
            seconds[key].append(time.perf_counter() - start)
        draws = {key: resampled(metrics_for(task)[name], truth, one, examples.patients) for key, one in said.items()}
        for key, path in paths.items():
            low, high = interval(draws[key] - draws["fp32"])
            rows[key] = {
                "MB": path.stat().st_size / 1e6,
                "share of fp32": path.stat().st_size / fp32.stat().st_size,
                "ms an image": 1e3 * float(np.median(seconds[key])),
                "agreement": float((said[key].decided == said["fp32"].decided).mean()),
                name: score(metrics_for(task)[name], truth, said[key]),
                "low": low,
                "high": high,
            }
            recall = recall_score(truth, said[key].decided, labels=codes, average=None, zero_division=np.nan)
            found[f"sensitivity {key}"] = recall
        images = truth.sum(axis=0) if truth.ndim == 2 else np.bincount(truth, minlength=len(codes))
        classes = pd.DataFrame({"images": images, **found}, index=pd.Index(task.classes, name="class"))
        classes["difference"] = classes["sensitivity int8"] - classes["sensitivity fp32"]
        reasons = _reasons(gate, rows["int8"], classes, name)
        if not reasons:
            write_bytes(int8, paths["int8"].read_bytes())
    table = pd.DataFrame(rows).T.rename_axis("model")
    return Compressed(fp32 if reasons else int8, len(truth), examples.drawn, table, classes, gate, reasons)


def _judge(session: onnxruntime.InferenceSession, task: Task, images: np.ndarray) -> Prediction:
    """Let a session of one thread answer on every core: batches side by side are faster than threads in a batch."""
    starts = range(0, len(images), graphs.BATCH)
    parts = each(lambda start: run(session, task, images[start : start + graphs.BATCH]), starts, title="judging")
    return Prediction.joined(list(parts))


def _reasons(gate: AcceptanceCriteria, row: dict, classes: pd.DataFrame, metric: str) -> tuple[str, ...]:
    reasons = []
    if not row["agreement"] >= gate.agreement:
        reasons.append(f"{row['agreement']:.1%} of the decisions are the same, less than {gate.agreement:.0%}")
    if not row["low"] >= -gate.loss:  # NaN where the images are too few to tell
        reasons.append(f"the interval of the difference in {metric} reaches {row['low']:.3f}")
    for name, entry in classes[classes["images"] >= FEW].iterrows():
        if not entry["difference"] >= -gate.sensitivity:
            reasons.append(f"the sensitivity for {name} falls by {-entry['difference']:.2f}")
    return tuple(reasons)


def quantize(fp32: str | Path, int8: str | Path, calibration: np.ndarray) -> Path:
    """Write a static int8 copy of a graph: QDQ, a weight scale a channel, activation ranges by MinMax.

    The arithmetic (Jacob et al., arXiv 1712.05877) is the same on processors with and without VNNI: those without add
    two products of 8 bits in 16, which would saturate, and weights of 7 bits cannot. What rounded weights add to a
    convolution's output on average is taken out of its bias (Nagel et al., ICCV 2019, section 4.2). What is small, and
    whose rounding harms most, stays float: the first convolution, of networks with depthwise ones all first ones that
    hold ``FLOAT_SHARE`` of the weights together; the last layer, what follows it, the class activation map and the
    distance to the training images.

    Args:
        fp32: the exported graph.
        int8: the file to write.
        calibration: prepared training images, uint8 (N, size, size, 3), from which the ranges are read; some hundred.

    Returns:
        ``int8``, written.

    Raises:
        MedicError: images of the wrong shape, or the graph cannot be quantised.
    """
    before = open_session(fp32)
    outputs_of(before, calibration[:1], graphs.OUTPUTS)
    starts = range(0, len(calibration), graphs.BATCH)
    batches = [{graphs.INPUT: calibration[start : start + graphs.BATCH]} for start in starts]
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            with quiet():
                # Symbolic shape inference stops at the exporter's graphs, and the plain one is enough for them.
                quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
                graph = onnx.load(prepared)
                nodes = _quantizable(graph.graph)
                _correct_biases(graph, [node for node in nodes if node.op_type == "Conv"], batches)
                onnx.save(graph, prepared)
                reader = iter(batches)
                quantize_static(
                    prepared,
                    quantized,
                    SimpleNamespace(get_next=lambda: next(reader, None)),
                    op_types_to_quantize=list(QUANTIZED),
                    nodes_to_quantize=[node.name for node in nodes],
                    activation_type=QuantType.QUInt8,
                    per_channel=True,
                    reduce_range=True,
                )
        except Exception as error:  # the quantiser raises from many layers; none of it may reach the reader raw
            raise MedicError(f"{fp32} could not be quantised ({error!r}); go on with the fp32 graph") from error
        said = before.get_modelmeta().custom_metadata_map | {graphs.PRECISION: "int8"}
        if (rule := referral_of(before)) and rule.distance is not None:
            # Rounding moves the features of every image, and so adds about the same to every squared distance.
            one, other = (
                outputs_of(each, calibration, [graphs.DISTANCE])[graphs.DISTANCE]
                for each in (before, open_session(quantized))
            )
            limit = np.sqrt(max(0.0, rule.distance**2 + np.median(other**2 - one**2)))
            said[graphs.REFERRAL] = json.dumps(replace(rule, distance=float(limit)).to_dict())
        write_bytes(int8, finish(onnx.load(quantized), said).SerializeToString())
    return Path(int8)


def _quantizable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes after the first convolutions, up to the last one and what follows it before the average."""
    sizes = {tensor.name: np.prod(tensor.dims) for tensor in graph.initializer}
    needed, nodes = {output.name for output in graph.output} - {graphs.ACTIVATION, graphs.DISTANCE}, []
    for node in reversed(graph.node):  # what only the map or the distance needs stays float
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            nodes.insert(0, node)
    places = [place for place, node in enumerate(nodes) if node.op_type == "Conv" and node.input[1] in sizes]
    depthwise = any(one.name == "group" and one.i > 1 for place in places for one in nodes[place].attribute)
    held = np.cumsum([sizes[nodes[place].input[1]] for place in places]) / sum(sizes.values())
    first = places[max(1, int((held <= FLOAT_SHARE).sum()) if depthwise else 1)]
    chosen, reached = nodes[first : places[-1] + 1], set(nodes[places[-1]].output)
    for node in nodes[places[-1] + 1 :]:
        if node.op_type in QUANTIZED and not reached.isdisjoint(node.input):
            chosen.append(node)
            reached.update(node.output)
    return chosen


def _correct_biases(graph: onnx.ModelProto, convolutions: list[onnx.NodeProto], batches: list[dict]) -> None:
    """Take out of biases what rounding the weights to 7 bits adds on average, over the calibration images."""
    constants = {tensor.name: to_array(tensor) for tensor in graph.graph.initializer}
    names, probe = list({node.input[0]: None for node in convolutions}), onnx.ModelProto()
    probe.CopyFrom(graph)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [[one.mean(axis=(0, 2, 3)) for one in session.run(names, batch)] for batch in batches]
    means = dict(zip(names, (np.mean(one, axis=0) for one in zip(*found, strict=True)), strict=True))
    for node in convolutions:
        weights = constants[node.input[1]]
        step = np.maximum(np.abs(weights).max(axis=(1, 2, 3), keepdims=True), 1e-30) / 64
        added = (np.round(weights / step) * step - weights).sum(axis=(2, 3))
        inputs = means[node.input[0]].reshape(-1, weights.shape[1])  # a row a group
        added = (added * inputs.repeat(len(weights) // len(inputs), axis=0)).sum(axis=1)
        bias = (constants[node.input[2]] if len(node.input) > 2 else 0) - added
        del node.input[2:]  # equal biases are one tensor
        node.input.append(f"{node.output[0]}_bias")
        graph.graph.initializer.append(from_array(bias.astype(np.float32), node.input[2]))
    used = {name for node in graph.graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.graph.initializer if tensor.name not in used]:
        graph.graph.initializer.remove(tensor)  # onnxruntime would print a warning for each
