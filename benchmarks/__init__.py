"""Benchmarks of event loops: tasks, network, HTTP and memory."""
