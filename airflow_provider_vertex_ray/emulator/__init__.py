"""A local service that stands in for Ray on Vertex AI: the API, and clusters of real Ray behind it."""
