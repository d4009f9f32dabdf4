"""Makes scheduled trips at the edge, as an operator's own program does: from a feed, or made up."""
