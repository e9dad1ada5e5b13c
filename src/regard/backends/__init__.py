"""Ways to compute attention. Each declares what it can do; none imports another; the dispatcher knows them all."""
