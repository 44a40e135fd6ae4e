"""Where a standalone platform keeps its things."""

import os
from pathlib import Path


def default_data_folder() -> Path:
    """The user's folder for application data, by the XDG base directory specification."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "inference-server"


def default_models_folder() -> Path | None:
    """The examples that come with the source, where this runs from it."""
    folder = Path(__file__).resolve().parent.parent / "models_examples"
    return folder if folder.is_dir() else None
