"""What makes networks fast."""
