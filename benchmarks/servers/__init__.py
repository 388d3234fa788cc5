"""Server processes, each run by one loop."""
