"""Tools for working on this project: the demo, and a real Airflow for it and for the system tests."""
