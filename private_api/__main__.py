"""``python -m private_api``."""

from private_api.main import main

main()
