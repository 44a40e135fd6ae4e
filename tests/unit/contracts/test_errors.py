import pytest

from contracts import errors
from contracts.errors import IllegalTransition, PlatformError, error_for


def _tree(kind: type[PlatformError]) -> list[type[PlatformError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _tree(child))]


KINDS = [kind for kind in _tree(PlatformError) if kind.__module__ == errors.__name__]


def test_no_two_errors_share_a_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not IllegalTransition], ids=lambda kind: kind.code)
def test_an_error_that_crossed_the_wire_is_the_same_error_again(kind: type[PlatformError]) -> None:
    again = error_for(kind("why").code, "why")

    assert type(again) is kind
    assert (again.message, str(again)) == ("why", "why")


def test_an_unknown_code_is_an_error_of_no_special_kind() -> None:
    assert type(error_for("from_the_future", "why")) is PlatformError


def test_the_tree_in_the_modules_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__, kind
