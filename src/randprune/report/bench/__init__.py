"""The page of one benchmark: what it says, and the parts of its page."""
