"""Arithmetic of boxes and pixels, and copies between host and device."""
