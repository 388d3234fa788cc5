"""A loop's metrics for other systems: ``prometheus`` and ``opentelemetry``.

Each module needs nothing but hotloop until it is asked for objects of another package.
"""
