"""Task decorators for Ray on Vertex AI."""
