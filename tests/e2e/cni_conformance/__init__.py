"""The CNI specification as tests, that run against any plugin."""
