"""A job of ours on SageMaker: started unless it runs already, and followed to its end.

Rule: whoever stops following stops nothing; the job goes on, and the same command finds it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from container.operate.jobs.order import TRAINING, Order
from container.operate.progress import Line
from container.operate.release.trouble import aws_told
from container.operate.troubles import NotNow, Stopped

POLL_S = 5.0
COMPLETED, FAILED, STOPPED = "Completed", "Failed", "Stopped"
OVER = (COMPLETED, FAILED, STOPPED)


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as SageMaker describes it. stage: what of it goes on; why: the reason or message of its end."""

    name: str
    status: str
    stage: str
    why: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in OVER


class Job:
    """client: boto3's for sagemaker."""

    def __init__(self, client: Any, order: Order) -> None:
        self._client = client
        self._order = order
        self._word = "Training" if order.kind == TRAINING else "Processing"

    @property
    def log_group(self) -> str:
        return f"/aws/sagemaker/{self._word}Jobs"

    def start(self) -> tuple[str, bool]:
        """The name of the job, and whether it was started now. Raises CommandFailed."""
        base = self._order.base
        with aws_told():
            # The newest first, and their numbers grow.
            found = getattr(self._client, f"list_{self._order.kind}_jobs")(
                NameContains=f"{base}-", SortBy="CreationTime", SortOrder="Descending", MaxResults=1
            )[f"{self._word}JobSummaries"]
            number = 1
            if found:
                name = found[0][f"{self._word}JobName"]
                if found[0][f"{self._word}JobStatus"] not in OVER:
                    return str(name), False
                number = int(name.rpartition("-")[2]) + 1
            name = f"{base}-{number}"
            getattr(self._client, f"create_{self._order.kind}_job")(**self._order.request(name))
        return name, True

    def look(self, name: str) -> Seen:
        with aws_told():
            told = getattr(self._client, f"describe_{self._order.kind}_job")(**{f"{self._word}JobName": name})
        status = told[f"{self._word}JobStatus"]
        why = "; ".join(filter(None, (told.get("FailureReason"), told.get("ExitMessage"))))
        return Seen(name, status, told.get("SecondaryStatus", status), why)

    def follow(self, name: str, progress: Callable[[], str], stop: threading.Event, *, poll_s: float = POLL_S) -> Seen:
        """Its end. progress: what the run itself tells by now. Raises Stopped: by whoever follows."""
        line = Line()
        text = ""
        try:
            while not stop.is_set():
                try:
                    seen = self.look(name)
                    if seen.is_over:
                        return seen
                    text = f"{seen.stage}  {progress()}".rstrip()
                except NotNow as error:  # SageMaker or S3, for a moment: the job does not hang on us
                    text = str(error)
                line.tell(text.__str__)
                stop.wait(poll_s)
        finally:
            line.close()
        raise Stopped(
            f"the job {name} goes on; the same command follows it again, and this ends it: {self.ended_by(name)}"
        )

    def ended_by(self, name: str) -> str:
        return f"aws sagemaker stop-{self._order.kind}-job --{self._order.kind}-job-name {name}"
