"""What is wrong with a data set, and with what a run makes of it."""
