"""``python -m private_api.admin``, for containers: there the command ``infer`` is not installed."""

from private_api.admin.command import admin

admin(prog_name="private_api.admin")
