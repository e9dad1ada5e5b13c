"""Tools for testing attention."""
