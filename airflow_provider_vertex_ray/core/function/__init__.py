"""Turn a decorated Python function into a program that runs on a cluster."""
