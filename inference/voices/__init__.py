"""Named voices on disk."""
