"""Privacy: what people may ask of the lakehouse, who may see what of it, and proof of what was done."""
