"""Research that stands on the product."""
