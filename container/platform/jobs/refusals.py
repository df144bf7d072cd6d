"""How a job is refused."""

from __future__ import annotations

from typing import NoReturn

from container.platform.service.faults import NotPlayed, ValidationException


def refuse(why: str) -> NoReturn:
    raise ValidationException(why)


def not_played(what: str) -> NoReturn:
    raise NotPlayed("sagemaker", what)
