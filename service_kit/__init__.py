"""Mechanical parts that every service needs; nothing here knows what a task or a model is."""
