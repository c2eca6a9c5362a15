"""People's rights (spec 8): what is held of a person, found in every layer."""
