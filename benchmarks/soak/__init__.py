"""A long run of mixed connections, in which nothing may be lost or grow."""
