"""The questions, one to a file; each docstring says what is timed and what is not."""
