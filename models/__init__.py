"""Models: what is a label, what is the model, how it is judged (pure: no Ray, no network, no clocks)."""
