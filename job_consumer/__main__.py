"""``python -m job_consumer``."""

from job_consumer.main import main

main()
