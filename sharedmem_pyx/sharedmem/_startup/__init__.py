"""What the import does before anything else, and as soon as other libraries are imported."""
