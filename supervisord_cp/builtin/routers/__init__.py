"""Where a request goes: steps, and presets of steps."""
