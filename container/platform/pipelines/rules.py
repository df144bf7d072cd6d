"""Rules of EventBridge with targets that are the platform's: a pipeline among them is started by an event that fits.

Rule: one target that fails, or that nobody here plays, keeps no event from the others; the log names it.

moto keeps the rules and sends to queues, log groups, archives and buses; it stops at the first target of another kind, and
asks no rule whether it is enabled. Source: BC SageMakerPipelineParameters; EventBridge guide, eb-pipes-event-target
(dynamic path parameters: documented for pipes, of rules inferred).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from container.platform.pipelines.expressions import NotFound, PathInvalid, followed, text, words_of
from container.platform.service.faults import ServiceFault
from container.platform.service.inside import Inside

log = logging.getLogger("mme.platform")


class Starter:
    """Starts pipelines that are targets, of a rule or of a schedule."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def install(self, account: str) -> None:
        """From now on moto's rules of an account ask this one."""
        from container.platform.pipelines.moto_rules import install  # moto is imported when it is asked first

        install(account, self)

    def is_for(self, arn: str) -> bool:
        return arn.startswith("arn:aws:sagemaker:") and ":pipeline/" in arn

    def start(self, target: Mapping[str, Any], event: Mapping[str, Any], token: str | None = None) -> None:
        """token: so that the same thing asked twice starts one. What is refused is in the log."""
        try:
            parameters = [
                {"Name": one["Name"], "Value": _value(one["Value"], event)}
                for one in target.get("SageMakerPipelineParameters", {}).get("PipelineParameterList", ())
            ]
            told = self._inside.ask(
                "sagemaker",
                "StartPipelineExecution",
                {
                    "PipelineName": target["Arn"],
                    "PipelineParameters": parameters,
                    "ClientRequestToken": token or str(uuid.uuid4()),
                },
            )
        except (ServiceFault, NotFound, PathInvalid) as error:
            log.warning("%s is not started by an event: %s", target["Arn"], error)
        else:
            log.info("%s is started by an event", told["PipelineExecutionArn"])


def _value(given: str, event: Mapping[str, Any]) -> str:
    """A value that is a path as a whole is taken from the event."""
    return text(followed(event, words_of(given), given)) if given.startswith("$.") else given
