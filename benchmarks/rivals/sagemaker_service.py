"""A handler for stock MMS as sagemaker-inference's documentation has its users write it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler
from sagemaker_inference.transformer import Transformer


class _InferenceHandler(DefaultInferenceHandler):
    def default_model_fn(self, model_dir: str, context: Any = None) -> xgboost.Booster:  # noqa: ARG002
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(Path(model_dir, "xgboost-model").read_bytes()))

    def default_input_fn(self, input_data: str, content_type: str, context: Any = None) -> Any:  # noqa: ARG002
        return np.loadtxt(io.StringIO(input_data), delimiter=",", dtype=np.float32, ndmin=2)

    def default_predict_fn(self, data: Any, model: xgboost.Booster, context: Any = None) -> Any:  # noqa: ARG002
        return model.inplace_predict(data)

    def default_output_fn(self, prediction: Any, accept: str, context: Any = None) -> Any:  # noqa: ARG002
        return "\n".join(map(str, prediction)), "text/csv"


class HandlerService(DefaultHandlerService):
    def __init__(self) -> None:
        super().__init__(transformer=Transformer(default_inference_handler=_InferenceHandler()))


_service = HandlerService()


def handle(data: Any, context: Any) -> Any:
    """MMS's entry point: the first call, without data, loads."""
    if data is None:
        _service.initialize(context)
        return None
    return _service.handle(data, context)
