"""Everything below Airflow's surface: pure models and the clients of the service, one folder a subject."""
