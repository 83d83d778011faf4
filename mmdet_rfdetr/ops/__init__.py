"""Arithmetic of boxes, masks and pixels, and copies between host and device."""
