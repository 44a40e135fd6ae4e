"""Puts the platform on hosts: images, secrets, and what a host needs before its first start. Not part of any image."""
