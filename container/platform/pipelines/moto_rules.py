"""moto's rules of EventBridge, of which each target is asked for itself. See rules.py.

Rule: imported when moto is asked for the first time, and by nobody before.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from moto.events.models import EventsBackend, Rule, events_backends

from container.platform.pipelines.rules import Starter

log = logging.getLogger("mme.platform")


def install(account: str, starter: Starter) -> None:
    """From now on moto's EventBridge of an account, in every region, has rules of this kind."""

    def backend(region: str, account_id: str) -> PlatformEvents:
        made = PlatformEvents(region, account_id)
        made.starter = starter
        return made

    of_account = events_backends[account]
    of_account.clear()
    of_account.backend = backend


class PlatformRule(Rule):  # type: ignore[misc]
    starter: Starter

    def send_to_targets(self, original_event: Any, transform_input: bool = True) -> None:
        if self.state != "ENABLED" or not self.event_pattern.matches_event(original_event):
            return
        for target in list(self.targets):
            try:
                self._send_to(target, original_event, transform_input)
            except NotImplementedError:
                log.warning("rule %s: mme platform does not play its target %s", self.name, target["Arn"])
            except Exception:
                log.exception("rule %s: an event is lost for %s", self.name, target["Arn"])

    def _send_to(self, target: dict[str, Any], event: Any, transform_input: bool) -> None:
        if self.starter.is_for(target["Arn"]):
            self.starter.start(target, event)
            return
        one = copy.copy(self)
        one.targets = [target]
        Rule.send_to_targets(one, copy.deepcopy(event), transform_input)


class PlatformEvents(EventsBackend):  # type: ignore[misc]
    starter: Starter

    @property
    def _url_module(self) -> Any:
        # moto finds its paths beside the class, and asks the default account's backend of all for them.
        from moto.events import urls

        return urls

    def put_rule(self, *given: Any, **named: Any) -> Rule:
        rule = super().put_rule(*given, **named)
        rule.__class__ = PlatformRule  # moto makes its own kind, and keeps it
        rule.starter = self.starter
        return rule
