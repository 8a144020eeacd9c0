"""The command ``vertex-ray-migrate``, which rewrites DAG files of other Ray integrations for this package."""
