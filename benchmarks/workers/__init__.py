"""Processes that measure one loop from the inside."""
