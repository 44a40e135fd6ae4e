"""A token of one's own, kept in a file."""

from pathlib import Path

from service_kit.token_file import token_in


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"

    made = token_in(path)

    assert len(made) > 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert token_in(path) == made


def test_a_token_whose_making_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0o600)

    made = token_in(tmp_path / "token")

    assert made
    assert token_in(tmp_path / "token") == made


def test_a_token_that_a_person_wrote_counts_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-an-operator\n")

    assert token_in(tmp_path / "token") == "a-token-of-an-operator"
