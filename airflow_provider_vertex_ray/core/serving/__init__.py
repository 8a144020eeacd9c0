"""Models and endpoints of Vertex AI."""
