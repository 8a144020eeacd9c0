"""Backends of a cluster: real local Ray, or instant clusters with scripted jobs."""
