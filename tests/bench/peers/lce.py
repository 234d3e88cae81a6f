# SPDX-License-Identifier: Apache-2.0
"""Larq Compute Engine's interpreter on binary networks of the same topology: lce.py NETWORK BATCH. Weights are random."""

from __future__ import annotations

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import larq_compute_engine as lce  # noqa: E402
import numpy as np  # noqa: E402
from larq import layers as binary  # noqa: E402
from larq_compute_engine.tflite.python.interpreter import Interpreter  # noqa: E402
from tensorflow import keras  # noqa: E402
from tensorflow.keras import layers  # noqa: E402

from peer import serve  # noqa: E402

BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip", "use_bias": False}


def conv(x, c: int, stride: int = 1):  # noqa: ANN001, ANN201
    x = binary.QuantConv2D(c, 3, strides=stride, padding="same", pad_values=1.0, **BINARY)(x)
    return layers.BatchNormalization(scale=False)(x)


def vgg_small() -> keras.Model:
    image = layers.Input((32, 32, 3))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(128, 3, padding="same", use_bias=False)(image))
    for i, c in enumerate((128, 256, 256, 512, 512)):
        x = binary.QuantConv2D(c, 3, padding="same", pad_values=1.0, **BINARY)(x)
        if i % 2 == 0:
            x = layers.MaxPool2D(2)(x)
        x = layers.BatchNormalization(scale=False)(x)
    x = layers.Flatten()(x)
    for c in (1024, 1024, 10):
        x = layers.BatchNormalization(scale=False)(binary.QuantDense(c, **BINARY)(x))
    return keras.Model(image, x)


def resnet18() -> keras.Model:
    image = layers.Input((224, 224, 3))
    x = layers.BatchNormalization()(layers.Conv2D(64, 7, strides=2, padding="same", use_bias=False)(image))
    x = layers.MaxPool2D(3, strides=2, padding="same")(x)
    for c in (64, 128, 256, 512):
        for i in range(4):
            stride, shortcut = 1, x
            if c > 64 and i == 0:
                stride, shortcut = 2, layers.Conv2D(c, 1, use_bias=False)(layers.AvgPool2D(2)(x))
            x = layers.Add()([conv(x, c, stride), shortcut])
    return keras.Model(image, layers.Dense(1000)(layers.GlobalAvgPool2D()(x)))


def main() -> None:
    network, batch = sys.argv[1], int(sys.argv[2])
    model = {"vgg-small": vgg_small, "resnet18": resnet18}[network]()
    interpreter = Interpreter(lce.convert_keras_model(model), num_threads=1)
    images = np.random.default_rng(2).uniform(-1, 1, (batch, *model.input_shape[1:])).astype(np.float32)
    serve("Larq Compute Engine 0.16.0 interpreter", lambda: interpreter.predict(images))


if __name__ == "__main__":
    main()
