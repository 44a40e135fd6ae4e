"""``python -m public_api``."""

from public_api.main import main

main()
