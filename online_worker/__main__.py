"""``python -m online_worker``."""

from online_worker.main import main

main()
