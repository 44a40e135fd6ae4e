"""The PostgreSQL image for machines without a registry, in place of ``postgres:17``."""

from functools import partial
from pathlib import Path

from deployment.base_images.debian_tree import (
    NEEDED_BY_INSTALLATION_ALONE,
    WITHOUT_SETUID,
    DebianRecipe,
    TreeFile,
    ensure_debian_image,
)

VERSION = "17"
TAG = f"inference-server/postgres-base:{VERSION}"

_PROGRAMS = f"/usr/lib/postgresql/{VERSION}/bin"
_DATA = "/var/lib/postgresql/data"
_USER_ID = "999"
"""Of user and group ``postgres`` in the official image: a data folder fits both."""

RECIPE = DebianRecipe(
    tag=TAG,
    suite="trixie",
    packages=(f"postgresql-{VERSION}",),
    commands=(
        # The locale of the official image: a database that was made with one sorts alike under the other.
        ("localedef", "--inputfile=en_US", "--charmap=UTF-8", "en_US.UTF-8"),
        ("groupmod", f"--gid={_USER_ID}", "postgres"),
        ("usermod", f"--uid={_USER_ID}", f"--gid={_USER_ID}", "postgres"),
        ("rm", "-r", "/var/lib/postgresql", "/etc/postgresql"),  # Debian's own first cluster
        ("install", "--directory", "--owner=postgres", "--group=postgres", "--mode=0755", "/var/lib/postgresql"),
        ("install", "--directory", "--owner=postgres", "--group=postgres", "--mode=1777", _DATA),
        ("install", "--directory", "--owner=postgres", "--group=postgres", "--mode=3777", "/run/postgresql"),
        WITHOUT_SETUID,
    ),
    unneeded=(
        *NEEDED_BY_INSTALLATION_ALONE,
        # Debian's way to run several clusters, in Perl.
        "postgresql-common", "postgresql-common-dev", "postgresql-client-common", "ssl-cert", "ucf", "sensible-utils",
        "netbase", "libio-pty-perl", "libipc-run-perl", "libjson-perl", "libtext-charwidth-perl",
        "libtext-wrapi18n-perl", "libperl5.40", "perl", "perl-modules-5.40", "libgdbm6t64", "libgdbm-compat4t64",
        # The compiler of long queries, as large as all the rest; without its plug-in the server does not ask for it.
        "libllvm19", "libz3-4", "locales", "libc-l10n", "openssl",
    ),
    emptied=(
        f"usr/lib/postgresql/{VERSION}/lib/bitcode",
        f"usr/lib/postgresql/{VERSION}/lib/llvmjit*",
        "etc/ssl/private/*",
        "etc/ssl/certs/ssl-cert-snakeoil.pem",
    ),
    files=(
        TreeFile(
            "/usr/local/bin/docker-entrypoint.sh",
            (Path(__file__).parent / "postgres_entrypoint.sh").read_text(encoding="utf-8"),
            mode=0o755,
        ),
    ),
    settings=(
        "ENV LANG=en_US.utf8",
        f"ENV PATH=/usr/local/sbin:/usr/local/bin:{_PROGRAMS}:/usr/sbin:/usr/bin",
        f"ENV PGDATA={_DATA}",
        f"VOLUME {_DATA}",
        'ENTRYPOINT ["docker-entrypoint.sh"]',
        'CMD ["postgres"]',
        "STOPSIGNAL SIGINT",  # a fast shutdown: clients are sent away, data are written
        "EXPOSE 5432",
    ),
)  # fmt: skip

ensure = partial(ensure_debian_image, recipe=RECIPE)
"""The tag, once the engine has the image: ``ensure(engine, rebuild=…, mirrors=…)``."""
