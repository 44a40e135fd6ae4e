"""The images of a deployment: ``python -m deployment.images build|offline|save|load``.

``build`` and ``offline`` need the packages of this project (``make images``, ``make images-offline``). ``save`` and
``load`` need Python and the ``docker`` command alone, for hosts without any network.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from deployment.base_images import UPDATES_LABEL, Mirrors, Updates
from deployment.carrying import CarryError, Engine, load, save
from deployment.env_file import add_missing
from deployment.environment import deployment_environment
from deployment.image_names import EXTERNALS, SERVICES, all_tags

ENV_FILE = Path(".env")
_MEGABYTE = 10**6
_UPDATES_IN_WORDS = {
    Updates.SECURITY.value: "with Debian's security updates",
    Updates.NONE.value: "WITHOUT SECURITY UPDATES",
}


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _build(options: argparse.Namespace) -> int:
    from deployment.image_making import MakingFailed, make_online

    environment = deployment_environment(ENV_FILE)
    if options.python_image:
        environment["PYTHON_IMAGE"] = options.python_image
    services = [name.replace("-", "_") for name in options.services] or SERVICES
    try:
        tags = make_online(options.engine, environment, services, rebuild=options.rebuild)
    except MakingFailed as error:
        _tell(str(error))
        return 1
    _show(Engine(options.engine), tags)
    return 0


def _offline(options: argparse.Namespace) -> int:
    from deployment.image_making import MakingFailed, make_offline

    try:
        tags = make_offline(
            options.engine,
            deployment_environment(ENV_FILE),
            rebuild=options.rebuild,
            mirrors=Mirrors(options.mirror, options.security_mirror),
        )
    except MakingFailed as error:
        _tell(str(error))
        return 1
    _show(Engine(options.engine), tags)
    _choose_drop_ins(tags)
    return 0


def _save(options: argparse.Namespace) -> int:
    tags = options.tags or list(dict.fromkeys(all_tags(deployment_environment(ENV_FILE))))
    size = save(Engine(options.engine), tags, options.file, _tell)
    print(f"{options.file}: {len(tags)} images, {size // _MEGABYTE} MB")
    return 0


def _load(options: argparse.Namespace) -> int:
    engine = Engine(options.engine)
    tags = load(engine, options.file, _tell)
    _show(engine, tags)
    _choose_drop_ins(tags)
    needed = all_tags(deployment_environment(ENV_FILE))
    here = engine.sizes(needed)
    missing = [tag for tag in needed if tag not in here]
    if missing:
        print(f"The platform and its examples also need: {', '.join(missing)}")
    return 0


def _show(engine: Engine, tags: Sequence[str]) -> None:
    for tag, size in engine.sizes(tags).items():
        updates = _UPDATES_IN_WORDS.get(engine.label(tag, UPDATES_LABEL), "")
        print(f"{tag:48} {size // _MEGABYTE:5} MB  {updates}".rstrip())


def _choose_drop_ins(tags: Iterable[str]) -> None:
    """Let .env name the drop-ins among these images, where it names no other."""
    made = {external.variable: external.drop_in for external in EXTERNALS if external.drop_in in set(tags)}
    added = add_missing(ENV_FILE, made, "Images made without a registry (`make images-offline`).")
    if added:
        print(f"{ENV_FILE} now says: {', '.join(f'{name}={value}' for name, value in added.items())}")
    environment = deployment_environment(ENV_FILE)
    for name, value in made.items():
        if environment[name] != value:
            print(f"{name} stays {environment[name]}; {value} is there too")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployment.images", description="The images of a deployment.")
    parser.add_argument("--engine", metavar="URL", help="Docker engine (default: DOCKER_HOST or the local socket)")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    build = verbs.add_parser("build", help="build the services' images; registry and package index are reached")
    names = [*SERVICES, *(name.replace("_", "-") for name in SERVICES)]
    build.add_argument("services", nargs="*", metavar="SERVICE", help=f"default: all of {', '.join(SERVICES)}")
    build.add_argument("--python-image", metavar="TAG", help="in place of PYTHON_IMAGE of .env")
    build.set_defaults(run=_build, names=names)

    offline = verbs.add_parser("offline", help="make all images, of Debian packages and wheels; no registry is needed")
    offline.add_argument("--mirror", metavar="URL", help="Debian mirror, in place of debootstrap's own")
    offline.add_argument(
        "--security-mirror", metavar="URL", help="Debian's security archive, in place of the one of this machine's apt"
    )
    offline.set_defaults(run=_offline)
    for verb in (build, offline):
        verb.add_argument("--rebuild", action="store_true", help="also what is there and up to date")

    into = verbs.add_parser("save", help="write all images into one file")
    into.add_argument("file", metavar="FILE", type=Path)
    into.add_argument("tags", nargs="*", metavar="TAG", help="only these images")
    into.set_defaults(run=_save)

    out = verbs.add_parser("load", help="bring the images of a file into the engine")
    out.add_argument("file", metavar="FILE", type=Path)
    out.set_defaults(run=_load)

    options = parser.parse_args(arguments)
    strangers = sorted(set(getattr(options, "services", [])) - set(names))
    if strangers:
        parser.error(f"no such service: {', '.join(strangers)}; there are {', '.join(SERVICES)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; on failure one message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parse(arguments)
    try:
        return int(options.run(options))
    except CarryError as error:
        _tell(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
