"""Reads clips, writes streams."""
