"""What notebooks call, what they hand on to each other, and the runner of the series."""
