"""How long a test waits for what must happen: enough for a machine that does ten other things."""

HANG_S = 600  # what takes longer hangs; a bound on speed is another matter, with a name of its own
