"""What may be said of a family of models, of which one is to be chosen.

Accuracy with its error, latency by parts, the front of both, and the files and the page
that tell it; needs no PyTorch.
"""
