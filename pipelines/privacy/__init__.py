<<<<<<< HEAD
"""Privacy: what people may ask of the lakehouse, who may see what of it, and proof of what was done."""
=======
"""People's rights (spec 8): what is held of a person, found in every layer."""
>>>>>>> 572d1c7cdc1f041b26b92f4037885996bfedf9a0
