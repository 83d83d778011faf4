"""The same numbers sooner: recorded, compiled, deployed."""
