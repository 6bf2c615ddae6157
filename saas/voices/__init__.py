"""Cloned voices: upload, check, list, delete."""
