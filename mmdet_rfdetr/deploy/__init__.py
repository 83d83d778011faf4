"""Files for other runtimes: exported, checked against the model, read back."""
