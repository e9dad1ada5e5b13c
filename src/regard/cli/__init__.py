"""The command line: ``regard tour``, ``regard explain``, ``regard info``."""
