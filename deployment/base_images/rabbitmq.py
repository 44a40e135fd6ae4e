"""The RabbitMQ image for machines without a registry, in place of ``rabbitmq:4-management``."""

from functools import partial
from pathlib import Path

from deployment.base_images.debian_tree import (
    NEEDED_BY_INSTALLATION_ALONE,
    WITHOUT_SETUID,
    DebianRecipe,
    TreeFile,
    ensure_debian_image,
)

TAG = "inference-server/rabbitmq-base:4"

_PROGRAMS = "/usr/lib/rabbitmq/bin"
"""RabbitMQ's own scripts; Debian's wrappers in /usr/sbin write their output to files and insist on a user."""
_DATA = "/var/lib/rabbitmq"
_USER_ID = "999"
"""Of user and group ``rabbitmq`` in the official image: a data folder fits both."""

_OWNED_FOLDERS = (_DATA, "/etc/rabbitmq", "/etc/rabbitmq/conf.d", "/var/log/rabbitmq")

RECIPE = DebianRecipe(
    tag=TAG,
    suite="trixie",
    packages=("rabbitmq-server",),
    commands=(
        ("groupmod", f"--gid={_USER_ID}", "rabbitmq"),
        ("usermod", f"--uid={_USER_ID}", f"--gid={_USER_ID}", "rabbitmq"),
        # With the data goes the key that Debian made at installation: one per image would be one for all deployments.
        ("rm", "-r", _DATA, "/var/log/rabbitmq"),
        ("install", "--directory", "--owner=rabbitmq", "--group=rabbitmq", "--mode=0755", *_OWNED_FOLDERS),
        WITHOUT_SETUID,
    ),
    unneeded=(
        *NEEDED_BY_INSTALLATION_ALONE,
        # For rabbitmqadmin, a client in Python; rabbitmqctl stays.
        "python3", "python3-minimal", "python3.13", "python3.13-minimal", "libpython3-stdlib", "libpython3.13-stdlib",
        "libpython3.13-minimal", "libexpat1", "libsqlite3-0", "media-types",
        "openssl", "openssl-provider-legacy",
    ),
    emptied=(
        "usr/lib/erlang/lib/*/src", "usr/lib/erlang/lib/*/include", "usr/lib/erlang/lib/*/examples",
        "usr/lib/erlang/man",
    ),
    files=(
        TreeFile(
            "/usr/local/bin/docker-entrypoint.sh",
            (Path(__file__).parent / "rabbitmq_entrypoint.sh").read_text(encoding="utf-8"),
            mode=0o755,
        ),
        TreeFile("/etc/rabbitmq/conf.d/10-defaults.conf", "log.console = true\nlog.file = false\n"),
        TreeFile("/etc/rabbitmq/enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n"),
    ),
    settings=(
        "ENV LANG=C.UTF-8",
        f"ENV PATH=/usr/local/sbin:/usr/local/bin:{_PROGRAMS}:/usr/sbin:/usr/bin",
        f"ENV HOME={_DATA}",  # where the command-line tools look for the key to the server, whoever runs them
        f"VOLUME {_DATA}",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["rabbitmq-server"]',
        "EXPOSE 4369 5671 5672 15672 15692 25672",
    ),
)  # fmt: skip

ensure = partial(ensure_debian_image, recipe=RECIPE)
"""The tag, once the engine has the image: ``ensure(engine, rebuild=…, mirrors=…)``."""
