"""An ASGI application around a dictionary of boosters: what one writes first instead of a model server.

As bare as it can be and still do the job (no framework, no validation), which is in its favour. MODELS is the directory,
CAPACITY the number of boosters kept.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

_MODELS = Path(os.environ["MODELS"])
_CAPACITY = int(os.environ["CAPACITY"])
_boosters: OrderedDict[str, xgboost.Booster] = OrderedDict()


def _load(target: str) -> xgboost.Booster:
    with tarfile.open(_MODELS / target) as tar:
        member = tar.extractfile("xgboost-model")
        assert member is not None
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(member.read()))


async def _borrow(target: str) -> xgboost.Booster:
    booster = _boosters.get(target)
    if booster is None:
        booster = await asyncio.to_thread(_load, target)
        _boosters[target] = booster
        if len(_boosters) > _CAPACITY:
            _boosters.popitem(last=False)
    _boosters.move_to_end(target)
    return booster


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    body = b""
    is_more = True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    target = dict(scope["headers"])[b"x-amzn-sagemaker-target-model"].decode()
    booster = await _borrow(target)
    rows = np.loadtxt(io.BytesIO(body), delimiter=",", dtype=np.float32, ndmin=2)
    answer = "\n".join(map(str, booster.inplace_predict(rows))).encode()
    headers = [(b"content-type", b"text/csv"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
