"""Benchmarks of shared arrays beside plain NumPy and other libraries.

``python -m benchmarks`` measures every case with every contender that is
installed and writes a report in Markdown and JSON with plots beside it.
"""
