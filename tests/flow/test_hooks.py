"""The endpoint's own code in a running endpoint: `SAGEMAKER_PROGRAM` and what it defines."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import botocore.exceptions
import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], np.float32)

PROGRAM = """
    import json
    from prices import in_cents
    from sagemaker_inference.errors import BaseInferenceToolkitError

    print("printed by the module")

    def input_fn(body, content_type, context):
        if body == "boom":
            raise KeyError(body)
        if body == "exit":
            raise SystemExit
        if body == "teapot":
            raise BaseInferenceToolkitError(418, "short and stout", "I'm a teapot")
        print("printed by a hook")
        return [[float(cell) for cell in body.split(";")]]

    def predict_fn(data, model):
        import numpy as np
        return in_cents(model.inplace_predict(np.array(data, np.float32)))

    def output_fn(prediction, accept):
        return json.dumps({"cents": prediction.tolist()}), "application/x-price+json"
"""


def write(folder: Path, program: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "inference.py").write_text(dedent(program))
    (folder / "prices.py").write_text("def in_cents(dollars):\n    return dollars * 100\n")
    return {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(folder)}


def test_hooks_answer_fail_and_leave_the_endpoint_as_it_was(segments: Path, scratch: Path, tmp_path: Path) -> None:
    environment = write(tmp_path / "code", PROGRAM)
    with Endpoint(segments, scratch, "--workers", "3", "--loaders", "1", environment=environment) as endpoint:
        runtime = endpoint.runtime
        client = endpoint.client()

        def call(number: int, body: str) -> dict[str, object]:
            return client.invoke_endpoint(
                EndpointName="e", TargetModel=f"us/{number}.tar.gz", ContentType="text/csv", Body=body
            )

        for number in (1, 2):
            answer = call(number, ROW.replace(",", ";"))
            assert answer["ContentType"] == "application/x-price+json"
            cents = boosters.expected(boosters.segment(number), X)[:, 0] * 100
            assert answer["Body"].read().decode() == f'{{"cents": {cents.tolist()}}}'  # type: ignore[attr-defined]
        for body, status, says in (
            ("boom", 500, "input_fn: it failed"),
            ("exit", 500, "input_fn: it failed"),
            ("teapot", 418, "input_fn: short and stout"),
            ("a;b", 400, "could not convert string to float"),
        ):
            for _ in range(4):  # more than there are threads
                with pytest.raises(botocore.exceptions.ClientError) as raised:
                    call(1, body)
                response = raised.value.response
                assert response["Error"]["Code"] == "ModelError"
                assert response["OriginalStatusCode"] == status  # type: ignore[typeddict-item]
                assert says in response["Error"]["Message"]
        assert call(1, ROW.replace(",", ";"))["CustomAttributes"] == "cache=hit"
        assert endpoint.runtime == runtime
    log = "".join(endpoint.log)
    assert "hooks: input_fn, predict_fn, output_fn of inference.py" in log
    assert "KeyError: 'boom'" in log
    assert "printed by the module" in log
    assert "printed by a hook" in log


def test_a_module_that_cannot_be_imported_starts_no_endpoint(segments: Path, scratch: Path, tmp_path: Path) -> None:
    environment = write(tmp_path / "code", "import json\nimport no_such_thing\n")
    endpoint = Endpoint(segments, scratch, environment=environment)
    assert endpoint.wait() == 1
    said = "".join(endpoint.log)
    assert "inference.py, line 2: ModuleNotFoundError: No module named 'no_such_thing'" in said
    assert "Traceback" not in said
    assert list(scratch.iterdir()) == []
