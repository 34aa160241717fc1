"""A trained model as one ONNX file: resize, normalise, network and decoding in a single graph."""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medic.deployment.bundle.predictor import (
    ACTIVATION,
    INPUT,
    MODEL,
    PRECISION,
    REFERRAL,
    THRESHOLDS,
    open_session,
    outputs_of,
)
from medic.errors import MedicError
from medic.files import replacing
from medic.modeling.classifier import Classifier

OPSET = 18
"""The first with an antialiased Resize, and the last that the clouds' runtimes (onnxruntime 1.16) know well."""
IR_VERSION = 9
"""What onnxruntime 1.16 and 1.17 still read; the exporter writes a newer one."""
TOLERANCE = 1e-4
"""Largest difference to torch with which a graph is written; relative to an output's largest value where that is
above 1, as distances and class activation maps have no fixed scale."""


@dataclass(frozen=True)
class Exported:
    """An ONNX file, and how closely it follows the model it was made from.

    Attributes:
        path: the file.
        size: bytes.
        parity: largest difference to torch over all outputs (see ``TOLERANCE``), by the number of images in the batch.
    """

    path: Path
    size: int
    parity: dict[int, float]

    def __str__(self) -> str:
        parity = ", ".join(f"batch {count}: {difference:.1e}" for count, difference in self.parity.items())
        return f"{self.path}: {self.size / 1e6:.1f} MB, largest difference to torch {parity}"


def export(model: Classifier, path: str | Path, pixels: np.ndarray | None = None) -> Exported:
    """Write a model as ONNX (opset 18, IR 9, weights inside, any batch size), once it agrees with torch.

    The graph takes ``images`` uint8 (N, size, size, 3) RGB with ``size`` of the model's preprocessing, and gives
    ``probabilities`` float32 (N, C), for ordinal tasks ``grade`` float32 (N,), and where the model measures it
    ``distance`` float32 (N,) to the training images. The calibration is inside, so that what leaves the graph is
    calibrated. Where the network ends in an average over all places and one linear layer, as most but not all do,
    ``class_activation`` float32 (N, K, h, w) comes last (see ``WithActivation``). Its metadata hold all that a bundle
    is made of: the model's settings, a digest of its weights, operating point and referral rule.

    Args:
        model: the classifier; it is left as it is.
        path: the file to write; ``.onnx`` by custom.
        pixels: prepared images, uint8 (N, size, size, 3), on which the graph is compared with torch at batch 1 and at
            batch 4; random ones when None. Exporters have fixed the batch size silently before: hence both.

    Returns:
        Where it is, how large, and how closely it agrees.

    Raises:
        MedicError: the exporter failed, or the graph differs from torch by more than ``TOLERANCE`` (nothing is written
            then).
    """
    path, size = Path(path), model.preprocessing.size
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    pixels = np.resize(pixels, (4, *pixels.shape[1:]))  # fewer are repeated: the batch is what is under test
    said = {PRECISION: "fp32", MODEL: json.dumps({**model.to_dict(), "weights": model.digest})}
    if model.thresholds is not None:
        said[THRESHOLDS] = json.dumps(list(model.thresholds))
    if model.referral is not None:
        said[REFERRAL] = json.dumps(model.referral.to_dict())
    reference, names = copy.deepcopy(model).cpu().float().eval(), model.output_names
    if has_activation(reference):
        reference, names = WithActivation(reference), [*names, ACTIVATION]
    with torch.inference_mode():
        expected = {n: [one.numpy() for one in reference(torch.from_numpy(pixels[:n]))] for n in (1, 4)}
    try:
        with quiet():
            program = torch.onnx.export(
                reference,
                (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                verbose=False,
            )
            graph = finish(program.model_proto, said)
    except Exception as error:  # the exporter raises from many layers; none of it may reach the reader raw
        raise MedicError(
            f"torch could not export {model.backbone_name} to ONNX ({str(error).splitlines()[0]}); "
            "try another backbone or another version of torch"
        ) from error
    with replacing(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        session, parity = open_session(temporary), {}
        for count, outputs in expected.items():
            actual = outputs_of(session, pixels[:count], names)
            pairs = [(actual[name], one) for name, one in zip(names, outputs, strict=True)]
            parity[count] = float(np.max([np.abs(one - two).max() / max(1, np.abs(two).max()) for one, two in pairs]))
            if not parity[count] <= TOLERANCE:
                raise MedicError(
                    f"the exported graph of {model.backbone_name} differs from torch by {parity[count]:.1e} (allowed: "
                    f"{TOLERANCE:.0e}), so {path} was not written; try another backbone or another version of torch"
                )
    return Exported(path, path.stat().st_size, parity)


def finish(graph: onnx.ModelProto, said: Mapping[str, str]) -> onnx.ModelProto:
    """Make a graph one that old runtimes read, write what is said of it into its metadata, and check it.

    Opset imports that no node uses are dropped (old runtimes refuse unknown ones), and so are the exporter's notes on
    each node, which hold paths of the machine.
    """
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


class WithActivation(nn.Module):
    """A classifier in evaluation mode that gives its class activation map, too, last: float32 (N, K, h, w).

    The map is what each place of an image adds to each of the K raw outputs. A network that averages its last feature
    map over all places and then applies one linear layer may as well apply the layer first, place by place, and average
    afterwards (Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, section 2). The mean of
    the map over the places plus the layer's bias is the raw output, exactly. Grad-CAM (Selvaraju et al., ICCV 2017) is
    its positive part divided by the number of places. With the mirror image averaged in, so is its map, mirrored back.
    """

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Classify uint8 (N, H, W, 3) and append the map to what ``Classifier.forward`` gives."""
        with _Ending() as ending:
            answers = self.model.outputs(self.model.inputs(images))
        activation = F.conv2d(ending.features, ending.weight[:, :, None, None])
        if self.model.flips:
            count = images.shape[0]
            activation = (activation[:count] + activation[count:].flip(3)) / 2
        return (*answers, activation)


@torch.inference_mode()
def has_activation(model: Classifier) -> bool:
    """Try, on noise, whether the raw outputs of a model (in evaluation mode, on the CPU) are averages of such a map."""
    generator = torch.Generator().manual_seed(0)
    with _Ending() as ending:
        raw = model.backbone(torch.randn((2, 3, model.image_size, model.image_size), generator=generator))
    if ending.features is None or ending.weight.shape != (raw.shape[1], ending.features.shape[1]):
        return False
    expected = F.linear(ending.features.mean(dim=(2, 3)), ending.weight, ending.bias)
    return torch.allclose(expected, raw, rtol=1e-4, atol=1e-4)


class _Ending(TorchFunctionMode):
    """Notes the last feature map that a network averages over all places, and the last linear layer after it.

    Hooks on layers would not do: many networks average by a function in ``forward``.
    """

    features: Tensor | None = None

    def __torch_function__(self, called, types, args=(), kwargs=None) -> object:  # torch's own signature
        result = called(*args, **(kwargs or {}))
        if called in (F.adaptive_avg_pool2d, torch.mean, Tensor.mean) and args[0].ndim == 4:
            channels = args[0].shape[1]
            if result.shape[1:] in ((channels,), (channels, 1, 1)):
                # The identity stays where no layer follows.
                self.features, self.weight, self.bias = args[0], torch.eye(channels, dtype=args[0].dtype), None
        elif called is F.linear:
            self.weight, self.bias = args[1], args[2] if len(args) > 2 else None
        return result
