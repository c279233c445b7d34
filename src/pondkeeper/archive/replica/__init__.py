"""A database on another machine: what the primary gives out, who follows it, and how a follower becomes a primary."""
