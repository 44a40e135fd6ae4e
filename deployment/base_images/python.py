"""The Python base image, for machines without a registry: Debian's Python with venv and pip."""

from functools import partial

from deployment.base_images.debian_tree import DebianRecipe, ensure_debian_image

SUITE = "bookworm"
PYTHON_VERSION = "3.11"
"""The Python of SUITE; wheels for offline builds are chosen for it."""
TAG = f"inference-server/python-base:{SUITE}"

RECIPE = DebianRecipe(
    tag=TAG,
    suite=SUITE,
    packages=("python3", "python3-venv", "python3-pip", "ca-certificates"),
    settings=("ENV LANG=C.UTF-8 PIP_BREAK_SYSTEM_PACKAGES=1", 'CMD ["python3"]'),
    links=(("/usr/local/bin/python", "/usr/bin/python3"),),
)

ensure = partial(ensure_debian_image, recipe=RECIPE)
"""The tag, once the engine has the image: ``ensure(engine, rebuild=…, mirrors=…)``."""
