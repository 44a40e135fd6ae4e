"""The sum under MLServer: ``mlserver start FOLDER``, with the two settings files beside this one."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Sum(MLModel):  # type: ignore[misc]
    """Adds two numbers."""

    async def load(self) -> bool:
        """Nothing to load."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Give the sum."""
        a, b = (NumpyCodec.decode_input(one) for one in payload.inputs)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(name="result", payload=a + b)])
