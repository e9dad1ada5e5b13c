"""Timings as ratios: two ways of the same computation, alternately in one process, checked for equality first."""
