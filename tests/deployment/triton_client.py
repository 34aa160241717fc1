"""Triton's client against a service, as a program of its own: python triton_client.py http|grpc ADDRESS EXAMPLES.

Its gRPC messages and kserve's have the same names, and one process cannot have both. EXAMPLES is an .npz file with
``files`` (bytes of images), ``pixels`` (the same, prepared), ``probabilities`` and ``grade`` (what is expected).
"""

import importlib
import sys

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException


def refused(client, given: list, reason: str, model: str = "retinopathy") -> str:
    with pytest.raises(InferenceServerException, match=reason) as error:
        client.infer(model, given)
    return str(error.value.status())


def main(protocol: str, address: str, examples: str) -> None:
    triton = importlib.import_module(f"tritonclient.{protocol}")
    example = np.load(examples, allow_pickle=False)
    images = [bytes(data) for data in np.split(example["files"], np.cumsum(example["sizes"])[:-1])]
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("retinopathy")
    metadata = client.get_model_metadata("retinopathy")
    inputs = metadata["inputs"] if protocol == "http" else metadata.inputs
    assert [entry["name"] if protocol == "http" else entry.name for entry in inputs] == ["images", "image"]
    pixels = triton.InferInput("images", list(example["pixels"].shape), "UINT8")
    pixels.set_data_from_numpy(example["pixels"])
    files = triton.InferInput("image", [len(images)], "BYTES")
    files.set_data_from_numpy(np.array(images, dtype=np.object_))
    for given in (pixels, files):
        answer = client.infer("retinopathy", [given], request_id="mine")
        for name in ("probabilities", "grade"):
            np.testing.assert_allclose(answer.as_numpy(name), example[name], atol=1e-4)
        said = answer.get_response()
        assert (said["id"] if protocol == "http" else said.id) == "mine"
    only = client.infer("retinopathy", [files], outputs=[triton.InferRequestedOutput("grade")])
    assert only.as_numpy("probabilities") is None
    np.testing.assert_allclose(only.as_numpy("grade"), example["grade"], atol=1e-4)

    status = "400" if protocol == "http" else "StatusCode.INVALID_ARGUMENT"
    text = triton.InferInput("image", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"no image"], dtype=np.object_))
    assert refused(client, [text], "give a JPEG, PNG") in (status, "415")
    small = triton.InferInput("images", [1, 5, 5, 3], "UINT8")
    small.set_data_from_numpy(np.zeros((1, 5, 5, 3), np.uint8))
    assert refused(client, [small], "UINT8") == status
    assert refused(client, [pixels, files], "exactly one input|at most 1 item") == status
    refused(client, [files], "no model", model="another")
    with pytest.raises(InferenceServerException, match="one model"):
        client.unload_model("retinopathy")
    assert client.is_server_ready()
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
