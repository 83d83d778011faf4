"""Speed measured under a stated protocol; ``tools/benchmark.py`` is its command.

Each side is a process of its own, with a Python of its own, so that the official
package can be one. A side does one round of work when asked and answers with the
milliseconds of every phase; the sides take turns, and a ratio is taken within a round,
so that a drift of the machine cancels.
"""
