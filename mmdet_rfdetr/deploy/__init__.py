"""Files for other runtimes: exported, and checked against the model."""
