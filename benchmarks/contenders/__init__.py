"""The libraries compared, each behind the same few methods."""
