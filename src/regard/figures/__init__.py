"""Pictures of attention for papers and talks, in matplotlib: saved as PNG, SVG or PDF with ``figure.savefig``."""

from regard.figures.grid import plot_scores as plot_scores
from regard.figures.heatmap import plot_weights as plot_weights
