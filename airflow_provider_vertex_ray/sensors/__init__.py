"""Sensors for Ray on Vertex AI."""
