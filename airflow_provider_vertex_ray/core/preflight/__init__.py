"""Checks of a Google Cloud project before the first cluster is created."""
