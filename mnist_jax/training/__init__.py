"""From a configuration to weights on disk."""
