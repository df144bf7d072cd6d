"""Booster files of every XGBoost release since 0.72, read by ourselves into the current format."""

from handler.importer.booster import Imported, Stated, import_booster

__all__ = ["Imported", "Stated", "import_booster"]
