"""LeNet-5 in JAX: the network as a function of its weights, and a training step that is one compiled function.

Only ``code/02_modeling/01_train_lenet_three_ways.ipynb`` uses it, which shows this source beside PyTorch's and Julia's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class LeNet(nnx.Module):
    """uint8 (N, 28, 28) to scores (N, classes); inside, channels come last."""

    def __init__(self, key: jax.Array, classes: int = 10):
        rngs = nnx.Rngs(key)
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding=2, rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding=0, rngs=rngs)
        self.dense1, self.dense2 = nnx.Linear(400, 120, rngs=rngs), nnx.Linear(120, 84, rngs=rngs)
        self.dense3 = nnx.Linear(84, classes, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Scores of images."""
        x = pixels[..., None] / 255
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        return self.dense3(nnx.relu(self.dense2(nnx.relu(self.dense1(x.reshape(len(x), -1))))))


def train(
    network: LeNet, images: np.ndarray, labels: np.ndarray, order: np.ndarray, rates: Sequence[float]
) -> Iterator[tuple[LeNet, float, float]]:
    """Train with Adam; after each epoch give the network, the epoch's mean loss and its seconds."""
    graph, weights = nnx.split(network)
    optimizer = optax.adam(lambda step: jnp.asarray(rates)[step // order.shape[1]])
    state = optimizer.init(weights)

    def loss_of(weights, pixels, codes):
        scores = nnx.merge(graph, weights)(pixels)
        return optax.softmax_cross_entropy_with_integer_labels(scores, codes).mean()

    @jax.jit
    def step(weights, state, pixels, codes):
        loss, gradients = jax.value_and_grad(loss_of)(weights, pixels, codes)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(weights, updates), state, loss

    for batches in order:
        started, losses = time.perf_counter(), []
        for rows in batches:
            weights, state, loss = step(weights, state, images[rows], labels[rows])
            losses.append(loss)
        # Reading the losses waits for all that is still being computed.
        mean = float(np.mean(jax.device_get(losses)))
        yield nnx.merge(graph, weights), mean, time.perf_counter() - started


@nnx.jit
def scores(network: LeNet, images: np.ndarray) -> jax.Array:
    """What the network says of images: (N, classes)."""
    return network(images)


def carried_over(network: object) -> LeNet:
    """A network with the weights of PyTorch's, whose layers must be called as here.

    PyTorch keeps images as channels, rows, columns, and Flax as rows, columns, channels: the axes of a convolution are
    turned, and the first dense layer, which sees the 400 values in another order, is sorted anew.
    """
    twin = LeNet(jax.random.key(0), network.dense3.out_features)
    for name, layer in network.named_children():
        kernel = layer.weight.detach().numpy()
        if name == "dense1":
            kernel = kernel.reshape(120, 16, 5, 5).transpose(0, 2, 3, 1).reshape(120, 400)
        getattr(twin, name).kernel[...] = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        getattr(twin, name).bias[...] = layer.bias.detach().numpy()
    return twin
