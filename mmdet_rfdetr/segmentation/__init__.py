"""Instance masks: their head, loss, results and annotations."""
