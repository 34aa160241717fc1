"""Networks by name, and ImageNet's weights from a real server on loopback, never random ones instead."""

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from medic.errors import MedicError
from medic.modeling.backbones import backbone, parameters_megabytes, published_accuracy

FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_m": 64,
    "googlenet": 64,
    "inception_v3": 80,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x1_0": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_s": 64,
    "vgg11": 64,
    "vit_b_32": 64,
    "wide_resnet50_2": 64,
}


@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_one_network_of_each_family_gets_a_head_for_the_task(name, size):
    # All shapes and no arithmetic; but RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"), torch.inference_mode():
        network = backbone(name, outputs=5, image_size=size).eval()
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 5)


def test_no_family_of_torchvision_is_forgotten():
    def family(name: str) -> str:
        return re.match(r"[a-z]+(_v\d)?(?=[_\d]|$)", name.replace("wide_resnet", "wideresnet"))[0]

    listed = torchvision.models.list_models(module=torchvision.models)
    assert {family(name) for name in listed} == {family(name) for name in FAMILIES}


def test_a_vision_transformer_computes_at_the_size_it_is_built_for():
    with torch.inference_mode():
        assert backbone("vit_b_32", outputs=3, image_size=64).eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "size", "remedy"),
    [("vit_b_16", 100, "use image_size=96"), ("maxvit_t", 100, "cannot be built for images")],
)
def test_a_size_that_a_network_cannot_have_is_refused(name, size, remedy):
    with pytest.raises(MedicError, match=remedy):
        backbone(name, outputs=5, image_size=size)


@pytest.mark.parametrize(("name", "size", "published"), [("vit_b_16", 256, 224), ("vit_h_14", 224, 518)])
def test_imagenets_weights_of_a_vision_transformer_are_for_one_size(name, size, published):
    with pytest.raises(MedicError, match=f"for images of {published} pixels, not {size}; use image_size={published}"):
        backbone(name, outputs=5, weights="imagenet", image_size=size)


def test_the_published_accuracy_is_the_one_torchvision_states():
    assert published_accuracy("resnet18") == 69.758
    assert published_accuracy("efficientnet_v2_m") == 85.112
    assert all(40 < published_accuracy(name) < 90 for name in FAMILIES)
    with pytest.raises(MedicError, match="no classification network called 'resnet19'"):
        published_accuracy("resnet19")


def test_a_models_size_is_four_bytes_a_number():
    network = torch.nn.Sequential(torch.nn.Linear(999, 1000), torch.nn.BatchNorm1d(1000))
    assert parameters_megabytes(network) == pytest.approx(4 * (999 * 1000 + 1000 + 4 * 1000 + 1) / 1e6)


def test_the_last_layer_is_the_only_one_that_differs_from_torchvisions():
    ours, theirs = backbone("resnet18", outputs=5).state_dict(), torchvision.models.resnet18().state_dict()
    differing = [key for key in theirs if ours[key].shape != theirs[key].shape]
    assert differing == ["fc.weight", "fc.bias"]


def test_a_seed_gives_the_same_weights():
    torch.manual_seed(3)
    one = backbone("squeezenet1_1", outputs=5).state_dict()
    torch.manual_seed(3)
    other = backbone("squeezenet1_1", outputs=5).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["resnet19", "fcn_resnet50", ""])
def test_an_unknown_network_is_refused_with_examples(name):
    with pytest.raises(MedicError, match=r"no classification network called .* for instance resnet18"):
        backbone(name, outputs=5)


def test_unknown_weights_are_refused():
    with pytest.raises(MedicError, match="weights 'noisy' are unknown"):
        backbone("resnet18", outputs=5, weights="noisy")


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder behind a real server, asked instead of PyTorch's host; torch keeps its files in a folder of the test."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MEDIC_WEIGHTS_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def published(name: str, folder: Path, monkeypatch, rename=lambda key: key, spoil=lambda data: data) -> dict:
    """Put weights of a network into a folder under the name that ends in their checksum, as PyTorch does."""
    torch.manual_seed(1)
    state = torchvision.models.get_model(name, weights=None).state_dict()
    torch.save({rename(key): value for key, value in state.items()}, folder / "weights.pth")
    data = (folder / "weights.pth").read_bytes()
    file = f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (folder / file).write_bytes(spoil(data))

    class Published:
        class DEFAULT:
            url = f"https://download.pytorch.org/models/{file}"

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: Published)
    return state


def test_imagenet_weights_come_from_the_mirror_and_fill_all_layers_but_the_last(mirror, monkeypatch):
    state = published("squeezenet1_1", mirror, monkeypatch)
    network = backbone("squeezenet1_1", outputs=5, weights="imagenet").state_dict()
    assert network["classifier.1.weight"].shape[0] == 5
    others = [key for key in state if not key.startswith("classifier.1.")]
    assert len(others) > 40
    assert all(torch.equal(network[key], state[key]) for key in others)


def test_the_weights_are_downloaded_once(mirror, monkeypatch):
    published("squeezenet1_1", mirror, monkeypatch)
    backbone("squeezenet1_1", outputs=5, weights="imagenet")
    for file in mirror.iterdir():
        file.unlink()
    backbone("squeezenet1_1", outputs=5, weights="imagenet")


def test_the_old_key_names_in_the_published_densenet_are_understood(mirror, monkeypatch):
    def as_published(key: str) -> str:
        for layer in ("norm", "relu", "conv"):
            for number in "12":
                if "denselayer" in key:
                    key = key.replace(f".{layer}{number}.", f".{layer}.{number}.")
        return key

    state = published("densenet121", mirror, monkeypatch, rename=as_published)
    network = backbone("densenet121", outputs=5, weights="imagenet").state_dict()
    key = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(network[key], state[key])


def test_googlenet_takes_its_own_normalisation_with_and_without_imagenets_weights(mirror, monkeypatch):
    published("googlenet", mirror, monkeypatch)
    assert backbone("googlenet", outputs=5, weights="imagenet").transform_input
    assert backbone("googlenet", outputs=5).transform_input


def refused(name: str = "squeezenet1_1") -> str:
    with pytest.raises(MedicError) as caught:
        backbone(name, outputs=5, weights="imagenet")
    assert f"the ImageNet weights of {name}" in str(caught.value)
    return str(caught.value)


def test_damaged_weights_are_refused_with_the_manual_way(mirror, monkeypatch):
    published("squeezenet1_1", mirror, monkeypatch, spoil=lambda data: data[:-100] + bytes(100))
    message = refused()
    assert "invalid hash" in message
    assert "by hand into" in message
    assert "train from scratch" in message
    assert not list(mirror.parent.glob("torch/**/*.pth"))


def test_weights_that_the_server_does_not_have_are_refused(mirror, monkeypatch):
    published("squeezenet1_1", mirror, monkeypatch)
    for file in mirror.iterdir():
        file.unlink()
    assert "404" in refused()


def test_no_server_is_an_error_and_no_random_weights(mirror, monkeypatch):
    published("squeezenet1_1", mirror, monkeypatch)
    monkeypatch.setenv("MEDIC_WEIGHTS_MIRROR", "http://127.0.0.1:9/")
    assert "could not be fetched from http://127.0.0.1:9/squeezenet1_1-" in refused()


@pytest.mark.parametrize("address", ["nowhere", "ftp//x"])
def test_a_mirror_that_is_no_address_is_an_error(address, mirror, monkeypatch):
    published("squeezenet1_1", mirror, monkeypatch)
    monkeypatch.setenv("MEDIC_WEIGHTS_MIRROR", address)
    assert "could not be fetched" in refused()


def test_a_file_of_the_right_name_that_is_no_weight_file_is_an_error(mirror, monkeypatch):
    published("squeezenet1_1", mirror, monkeypatch)
    (file,) = mirror.glob("squeezenet1_1-*.pth")
    kept = Path(torch.hub.get_dir()) / "checkpoints" / file.name
    kept.parent.mkdir(parents=True)
    kept.write_text("put here by hand, and wrong")
    refused()


def test_weights_of_another_network_are_an_error(mirror, monkeypatch):
    published("squeezenet1_0", mirror, monkeypatch)
    assert "do not fit" in refused("squeezenet1_1")
