# SPDX-License-Identifier: Apache-2.0
"""Client of xnord, the inference server for binary neural networks. docs/python.md of the project introduces it.

    with xnord.Client("http://gateway:8000") as client:
        result = client.infer("picture.jpg")
        print(result.label, result.score)
"""

from ._version import VERSION as __version__
from .client import Client
from .errors import Error, NetworkError, ServerError
from .results import Class, Count, Metadata, ModelState, Outputs, Result, Server, Statistics, TensorInfo, Timings
from .shared import SharedTensors
from .tensors import Tensor

__all__ = ["Class", "Client", "Count", "Error", "Metadata", "ModelState", "NetworkError", "Outputs", "Result", "Server", "ServerError", "SharedTensors", "Statistics",
           "Tensor", "TensorInfo", "Timings", "__version__"]
