"""Looking inside: attention weights that are computed where they are read."""

from regard.weights.lazy import AttentionWeights as AttentionWeights
