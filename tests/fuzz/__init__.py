"""Differential fuzzing: random programs that must do on hotloop what they do on
asyncio, and random traffic on sockets that must lose nothing.

`make fuzz` runs both for a while; the ordinary tests run a few hundred cases.
"""
