"""The accepted generations and the uploads on their way, on disk."""
