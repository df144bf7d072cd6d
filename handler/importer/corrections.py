"""Where XGBoost 3.2 would answer differently from the release that wrote the booster, and what is changed so that it does not.

Rule: a wrong number is the one outcome that is not allowed. What cannot be corrected is refused with the reason.
"""

from __future__ import annotations

from handler.importer.learner import Learner


def correct(learner: Learner) -> list[str]:
    """Change the Learner in place; the sentences say what was changed."""
    made: list[str] = []
    return made
