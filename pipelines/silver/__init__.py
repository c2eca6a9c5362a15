"""What makes rows of silver from rows of bronze: rules, histories, uniqueness, playback sessions."""
