"""Cost estimates from price tables and the Cloud Billing Catalog."""
