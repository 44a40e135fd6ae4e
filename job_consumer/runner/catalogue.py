"""The models that the process runner can run: folders with a ``model.toml``, found by their container tag."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import InvalidRequest
from contracts.model_file import MODEL_FILE, ModelFile
from job_consumer.runner.base import ModelRefused


@dataclass(frozen=True)
class LocalModel:
    """One model folder and what its ``model.toml`` says."""

    folder: Path
    file: ModelFile


class Catalogue:
    """Model folders; each of ``folders`` is one itself or holds some. Read anew at each look: no restart is needed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folder.absolute() for folder in folders)

    def find(self, container_tag: str) -> LocalModel:
        """The one folder that stands for the tag, with all that it requires here.

        Raises
        ------
        ModelRefused
            No folder or more than one has the tag, or a Python module that it requires is not installed.
        """
        models, mistakes = self._read()
        matching = [model for model in models if model.file.container_tag == container_tag]
        if not matching:
            known = ", ".join(sorted(model.file.container_tag for model in models)) or "none"
            raise ModelRefused(
                f"No model folder here has the container tag {container_tag!r}; known are: {known}."
                + "".join(f" {mistake}" for mistake in mistakes)
            )
        if len(matching) > 1:
            folders = ", ".join(str(model.folder) for model in matching)
            raise ModelRefused(f"Several model folders have the container tag {container_tag!r}: {folders}.")
        _check_requirements(matching[0])
        return matching[0]

    def _read(self) -> tuple[list[LocalModel], list[str]]:
        models: list[LocalModel] = []
        mistakes: list[str] = []
        for folder in self._candidates():
            try:
                models.append(LocalModel(folder, ModelFile.load(folder)))
            except InvalidRequest as error:
                mistakes.append(error.message)
        return models, mistakes

    def _candidates(self) -> Iterator[Path]:
        for folder in self._folders:
            if (folder / MODEL_FILE).is_file():
                yield folder
            elif folder.is_dir():
                yield from (child for child in sorted(folder.iterdir()) if (child / MODEL_FILE).is_file())


def missing_modules(model: ModelFile) -> list[str]:
    """The Python modules that the model requires and that are not installed here."""
    return [name for name in model.requires if importlib.util.find_spec(name.partition(".")[0]) is None]


def _check_requirements(model: LocalModel) -> None:
    missing = missing_modules(model.file)
    if missing:
        raise ModelRefused(
            f"The model {model.file.human_readable_id!r} needs Python modules that are not installed here: "
            f"{', '.join(missing)}. Install them beside the consumer."
        )
