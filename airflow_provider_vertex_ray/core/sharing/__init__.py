"""Shared clusters: generations, leases, activity, idle policy and guarded deletion."""
