"""The wire formats that clients speak, one file each."""
