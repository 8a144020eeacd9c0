"""Protos, names, errors, paging and operations as they are on the wire."""
