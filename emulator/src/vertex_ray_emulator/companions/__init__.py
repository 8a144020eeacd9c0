"""Emulators of Cloud Storage and BigQuery that run beside this emulator."""
