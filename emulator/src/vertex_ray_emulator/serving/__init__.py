"""Models, endpoints and the processes that predict."""
