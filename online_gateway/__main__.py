"""``python -m online_gateway``."""

from online_gateway.main import main

main()
