"""Which folder a container tag leads to, and what is said when none does."""

from pathlib import Path

import pytest

from job_consumer.runner.base import ModelRefused
from job_consumer.runner.catalogue import Catalogue


def write_model(folder: Path, tag: str, more: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(
        f'human_readable_id = "model"\ncontainer_tag = "{tag}"\ncommand = ["sh", "run.sh"]\n{more}', encoding="utf-8"
    )
    return folder


def test_a_tag_leads_to_its_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "models/one:1")
    two = write_model(tmp_path / "two", "models/two:1")

    assert Catalogue([tmp_path]).find("models/two:1").folder == two


def test_a_model_folder_may_be_named_itself(tmp_path: Path) -> None:
    one = write_model(tmp_path / "elsewhere" / "one", "models/one:1")

    assert Catalogue([tmp_path / "missing", one]).find("models/one:1").folder == one


def test_a_model_added_later_is_found(tmp_path: Path) -> None:
    catalogue = Catalogue([tmp_path])
    with pytest.raises(ModelRefused, match="known are: none"):
        catalogue.find("models/one:1")

    write_model(tmp_path / "one", "models/one:1")

    assert catalogue.find("models/one:1").file.container_tag == "models/one:1"


def test_an_unknown_tag_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "models/one:1")
    write_model(tmp_path / "two", "models/two:1")

    with pytest.raises(ModelRefused, match=r"'models/one:2'; known are: models/one:1, models/two:1\."):
        Catalogue([tmp_path]).find("models/one:2")


def test_a_broken_model_file_hides_no_other_and_is_named_when_a_tag_is_missed(tmp_path: Path) -> None:
    write_model(tmp_path / "sound", "models/sound:1")
    write_model(tmp_path / "broken", "models/broken:1", more="command = 3\n")

    assert Catalogue([tmp_path]).find("models/sound:1").folder == tmp_path / "sound"
    with pytest.raises(ModelRefused, match=r"broken/model\.toml is not TOML"):
        Catalogue([tmp_path]).find("models/broken:1")


def test_two_folders_of_one_tag_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "models/one:1")
    write_model(tmp_path / "copy of one", "models/one:1")

    with pytest.raises(ModelRefused, match="Several model folders"):
        Catalogue([tmp_path]).find("models/one:1")


def test_a_python_module_that_is_not_installed_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "one", "models/one:1", more='requires = ["json", "no_such_module.part"]\n')

    with pytest.raises(ModelRefused, match=r"not installed here: no_such_module\.part"):
        Catalogue([tmp_path]).find("models/one:1")
