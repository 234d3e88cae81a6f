# SPDX-License-Identifier: Apache-2.0
"""The model that tests/bench/peers/serving has MLServer serve; WEIGHTS is replaced."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Product(MLModel):
    async def load(self) -> bool:
        self.weights = np.load("WEIGHTS").T.astype(np.float32)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = NumpyCodec.decode_input(payload.inputs[0])
        sums = (tensor.reshape(len(tensor), -1).astype(np.float32) @ self.weights).astype(np.int32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("accumulators", sums)])
