"""What runs on the cluster. It imports the standard library and Ray, and nothing of this package or of Airflow."""
