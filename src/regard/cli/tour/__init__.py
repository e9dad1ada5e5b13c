"""``regard tour``: attention from scratch, one numbered section after another, every number shown."""
