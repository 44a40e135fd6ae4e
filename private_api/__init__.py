"""Sole owner of the database, of the stored files and of publishing."""
