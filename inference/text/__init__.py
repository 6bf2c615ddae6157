"""Text before it is spoken: clean and split."""
