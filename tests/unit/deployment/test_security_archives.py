"""Which of apt's sources are asked for Debian's security updates."""

from deployment.base_images.debian_updates import security_archives

SITE = "http://mirror.hospital.example/security/"


def test_archives_of_security_suites_are_found_each_once_whatever_the_release() -> None:
    targets = "\n".join(
        (
            "bookworm|http://mirror.hospital.example/archive/|main",
            "bookworm-updates|http://mirror.hospital.example/archive/|main",
            f"bookworm-security|{SITE}|contrib",
            f"bookworm-security|{SITE}|main",
            f"bookworm-security|{SITE}|main",
            "stable-security|http://other.example/security/|main",
            "nodistro|https://vendor.example/node/|main",
        )
    )

    assert security_archives(targets) == [SITE, "http://other.example/security/"]


def test_sources_without_a_security_suite_give_none() -> None:
    assert security_archives("bookworm|http://mirror.hospital.example/archive/|main\n\n") == []
