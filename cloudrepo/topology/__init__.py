"""Topology files: one YAML a lab. Read with places, checked, compared with a slice, written, converted. Pure."""
