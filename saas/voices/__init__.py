"""Cloned voices: a clip someone uploads, what is said in it, and its deletion, which is one."""
