"""A run of the workflow seen from outside: its driver, the log it leaves, what failed in it."""
