"""What a terminal shows of the work inside a program, and what of it can be asked from a command line."""
