"""Realistic activity-stream records, encrypted exactly as the engines do: for demos, tests and rehearsals."""
