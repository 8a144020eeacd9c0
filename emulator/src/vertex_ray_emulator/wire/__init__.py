"""Wire format: protos, resource names, errors, paging and long-running operations."""
