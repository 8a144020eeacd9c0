"""The Airflow connection, put to use: credentials, project and location for the clients in ``api``."""
