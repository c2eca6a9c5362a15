"""The event contract: what events are called and hold, how they are written, and what may change."""
