"""Operators for Ray on Vertex AI."""
