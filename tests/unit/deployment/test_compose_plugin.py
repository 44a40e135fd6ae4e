"""Which compose is good enough, and which mirror is asked for one."""

import pytest

from deployment.compose_plugin import PluginUnavailable, is_recent, mirrors

BOOKWORM = {"ID": "debian", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
SITE = "http://mirror.hospital.example/archive/"


@pytest.mark.parametrize("answer", ["2.24.0", "v2.24.7", "2.26.1-4", "2.29.7-desktop.1\n", "3.0.0", "v10.1"])
def test_a_compose_from_2_24_on_is_recent(answer: str) -> None:
    assert is_recent(answer)


@pytest.mark.parametrize(
    "answer", [None, "", "1.29.2", "2.3.3", "v2.23.99", "unknown", "docker: 'compose' is not a command"]
)
def test_an_older_compose_or_another_answer_is_not(answer: str | None) -> None:
    assert not is_recent(answer)


def test_the_mirror_of_this_release_is_taken_once_and_nobody_elses() -> None:
    targets = "\n".join(
        (
            "bookworm-security|http://mirror.hospital.example/security/|main",
            "nodistro|https://vendor.example/node/|main",
            "bookworm|https://vendor.example/tool/|stable",
            f"bookworm|{SITE}|contrib",
            f"bookworm|{SITE}|main",
            f"bookworm|{SITE}|main",
        )
    )

    assert mirrors(BOOKWORM, targets) == [SITE]


def test_a_mirror_may_be_named_by_the_suite_and_the_first_is_asked_first() -> None:
    assert mirrors(BOOKWORM, f"stable|{SITE}|main\nbookworm|http://other.example/archive/|main\n") == [
        SITE,
        "http://other.example/archive/",
    ]


def test_a_debian_without_a_mirror_is_told_what_to_do() -> None:
    with pytest.raises(PluginUnavailable, match=r"apt has no mirror of Debian.*install Docker's own"):
        mirrors(BOOKWORM, "nodistro|https://vendor.example/node/|main\n")


def test_another_system_is_named_with_what_to_do_there() -> None:
    with pytest.raises(PluginUnavailable, match=r"Fedora Linux 42 is not Debian.*install Docker's own"):
        mirrors({"ID": "fedora", "PRETTY_NAME": "Fedora Linux 42"}, "")
