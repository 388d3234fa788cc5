"""Looking at running loops from outside: the commands top, record and plot."""
